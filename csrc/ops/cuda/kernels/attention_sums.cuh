// The sums of attention over a split context, and how they are joined: over the warps of a block,
// then over the splits of a row, always in that order and with the same arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt::decode {

inline constexpr int kWarps = 4, kThreads = 32 * kWarps;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Sums of one warp over the tiles of a split. Lane (g, t) = (lane / 4, lane % 4).
template <int D>
struct Sums {
  float largest;         // of head g
  float total;           // of head g, this lane's positions
  float sum[D / 16][4];  // transposed: numbers 16 r + g and + 8 of heads 2 t and 2 t + 1

  __device__ void clear() {
    largest = -INFINITY;
    total = 0.0f;
#pragma unroll
    for (auto& part : sum) part[0] = part[1] = part[2] = part[3] = 0.0f;
  }
};

// A weighted sum of values (one number of it), relative to the largest score.
struct Folded {
  float largest, total, sum;
};

// 2^x for x <= 0; where that is too small to count, 0. exp2f() scales such numbers, which takes as
// many instructions again.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// One order of operations wherever sums are joined: a row has the same bits over one block or many.
__device__ inline Folded fold(const Folded& a, const Folded& b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float keep_a = power_of_two(a.largest - largest);
  const float keep_b = power_of_two(b.largest - largest);
  return {largest, __fmaf_rn(a.total, keep_a, __fmul_rn(b.total, keep_b)),
          __fmaf_rn(a.sum, keep_a, __fmul_rn(b.sum, keep_b))};
}

__device__ inline Folded nothing() { return {-INFINITY, 0.0f, 0.0f}; }
// fold(nothing(), b), where b may be nothing too.
__device__ inline Folded fold_first(const Folded& b) {
  return {b.largest, b.total + 0.0f, b.sum + 0.0f};
}

// Shared memory behind the tiles: of the warps, and of the splits that this block has joined.
template <int D>
struct Joined {
  float* sum;      // [kWarps, group, D]
  float* largest;  // [kWarps, kMaxGroup]
  float* total;    // [kWarps, kMaxGroup]
  Folded* row;     // [group, D]
  int group;

  __device__ Joined(std::byte* memory, int group_size) : group(group_size) {
    sum = reinterpret_cast<float*>(memory);
    largest = sum + kWarps * group * D;
    total = largest + kWarps * kMaxGroup;
    row = reinterpret_cast<Folded*>(total + kWarps * kMaxGroup);
  }
  static std::size_t warps_bytes(int group) {
    return sizeof(float) * (kWarps * group * D + 2 * kWarps * kMaxGroup);
  }
  static std::size_t bytes(int group) {
    return warps_bytes(group) + sizeof(Folded) * static_cast<std::size_t>(group) * D;
  }

  __device__ void put(const Sums<D>& sums) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float all = sums.total + __shfl_xor_sync(kAllLanes, sums.total, 1);
    all += __shfl_xor_sync(kAllLanes, all, 2);
    if (t == 0) {
      largest[warp * kMaxGroup + g] = sums.largest;
      total[warp * kMaxGroup + g] = all;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int head = 2 * t + i % 2;
      if (head >= group) continue;
      float* to = sum + (warp * group + head) * D + g + i / 2 * 8;
#pragma unroll
      for (int r = 0; r < D / 16; ++r) to[16 * r] = sums.sum[r][i];
    }
  }
  // Element `e` = head * D + number, over the warps. Without branches, so that the elements of a
  // thread are found beside each other.
  __device__ Folded over_warps(int e) const {
    Folded all = fold_first({largest[e / D], total[e / D], sum[e]});
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const int at = w * kMaxGroup + e / D;
      const Folded with = fold(all, {largest[at], total[at], sum[w * group * D + e]});
      if (largest[at] != -INFINITY) all = with;  // otherwise it had no position
    }
    return all;
  }
};

// Where the splits of a row and head are kept until the last block joins them.
struct Pieces {
  float* sum;    // [kMaxSplits, group * dim]
  float* scale;  // [kMaxSplits, group, 2]

  __device__ void put(int split, int e, int group, int dim, const Folded& value) const {
    sum[split * group * dim + e] = value.sum;
    if (e % dim != 0) return;
    scale[(split * group + e / dim) * 2] = value.largest;
    scale[(split * group + e / dim) * 2 + 1] = value.total;
  }
  __device__ Folded get(int split, int e, int group, int dim) const {
    const float* at = scale + (split * group + e / dim) * 2;
    return {at[0], at[1], sum[split * group * dim + e]};
  }
  // Called by all threads: the first `splits` in shared memory, read at once.
  __device__ Pieces brought_to(float* sums, float* scales, int splits, int group, int dim) const {
    for (int i = 4 * threadIdx.x; i < splits * group * dim; i += 4 * kThreads) {
      copy_async(shared_address(sums + i), sum + i, true);
    }
    copy_async_commit();
    for (int i = threadIdx.x; i < splits * group * 2; i += kThreads) {
      scales[i] = __ldcg(scale + i);
    }
    copy_async_wait<0>();
    __syncthreads();
    return {sums, scales};
  }
};

// Whether this block is the last of `blocks` to come here; leaves the counter at zero then. What
// the threads of the others wrote before is visible to this one's after. `last`: shared memory.
__device__ inline bool is_last_block(std::uint32_t* counter, std::uint32_t blocks, bool* last) {
  __syncthreads();
  if (threadIdx.x == 0) {
    std::uint32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    *last = before == blocks - 1;
    if (*last) *counter = 0;
  }
  __syncthreads();
  return *last;
}

}  // namespace higgs_rt::decode
