// The wide product (sm_90a). A warp brings boxes of weights, another one boxes of rows, each into a
// queue in shared memory of its own: weights come from memory and fill a long one, rows come from
// the L2 cache. Groups of four warps multiply, 64 outputs each. The first weights are asked
// for before the kernels ahead have finished, and the next kernel may start once the last ones are.
// Blocks of a cluster split the inputs; each then ends a share of the rows. One more warp finds the
// factors of the norm ahead meanwhile (WideFactors).
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/wide_outputs.cuh"
#include "ops/cuda/kernels/wide_parts.cuh"
#include "ops/cuda/kernels/wide_shares.cuh"

namespace higgs_rt::wide {

// Stages that one thread fills and every group of warps empties.
struct Queue {
  std::uint32_t memory;
  Barrier* full;
  Barrier* empty;
  int stages, stage_bytes;

  __device__ std::uint32_t stage(int slot) const { return memory + slot * stage_bytes; }
  __device__ void init(unsigned readers) const {
    for (int i = 0; i < stages; ++i) {
      init_barrier(full + i, 1);
      init_barrier(empty + i, readers);
    }
  }
};

// The place of a step in a queue.
struct Place {
  int slot = 0;
  unsigned parity = 0;
  __device__ void next(const Queue& queue) {
    if (++slot == queue.stages) slot = 0, parity ^= 1;
  }
};

// Boxes of weights for a queue; used by one thread, as RowSource.
struct WeightSource {
  static constexpr int kBytes = kOutputs * kRowBytes;
  const CUtensorMap* map;
  Halves from;
  std::uint64_t policy;

  __device__ WeightSource(const CUtensorMap* weights, const Work& work, const Share& share)
      : map(weights), from(halves_of(work.to, work.outputs, share.tile)), policy(once_policy()) {}
  __device__ void bring(const Queue& queue, int chunk, int slot) const {
    Barrier* barrier = queue.full + slot;
    expect_bytes(barrier, kBytes);
    const std::uint32_t to = queue.stage(slot);
    copy_box(to, map, chunk * kChunk, from.low, barrier, policy);
    copy_box(to + kBytes / 2, map, chunk * kChunk, from.high, barrier, policy);
  }
};

template <int kRows>
struct RowSource {
  const CUtensorMap* map;
  std::uint64_t policy = often_policy();

  __device__ void bring(const Queue& queue, int chunk, int slot) const {
    expect_bytes(queue.full + slot, Sizes<kRows>::kRowsBytes);
    copy_box(queue.stage(slot), map, chunk * kChunk, 0, queue.full + slot, policy);
  }
};

// All chunks of a share, each when its stage is free and no more than `under_way` are on their way.
template <class Source>
__device__ inline void feed(const Queue& queue, const Share& share, const Source& source,
                            int under_way) {
  Place place, late;
  for (int i = 0; i < share.end - share.begin; ++i) {
    if (i >= queue.stages) wait_barrier(queue.empty + place.slot, place.parity ^ 1);
    if (i >= under_way) {
      wait_barrier(queue.full + late.slot, late.parity);
      late.next(queue);
    }
    source.bring(queue, share.begin + i, place.slot);
    place.next(queue);
  }
}

// Four warps: the sums of 64 outputs.
template <int kRows>
__device__ inline void multiply_all(const Share& share, const Queue& weights, const Queue& rows,
                                    int group, float (&sum)[kRows / 2]) {
  const bool speaks = threadIdx.x % 32 == 0;
  Place weight, row, weight_before, row_before;
  for (int chunk = share.begin; chunk < share.end; ++chunk) {
    wait_barrier(weights.full + weight.slot, weight.parity);
    wait_barrier(rows.full + row.slot, row.parity);
    const std::uint64_t a = tile_at(weights.stage(weight.slot) + group * kGroupOutputs * kRowBytes);
    const std::uint64_t b = tile_at(rows.stage(row.slot));
    begin_products();
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
      multiply(sum, a + 2 * k, b + 2 * k);
    }
    end_products();
    wait_products<1>();
    if (chunk != share.begin && speaks) {
      arrive_barrier(weights.empty + weight_before.slot);
      arrive_barrier(rows.empty + row_before.slot);
    }
    weight_before = weight, row_before = row;
    weight.next(weights), row.next(rows);
  }
  wait_products<0>();
  settle(sum);
}

// Sums to shared memory as [rows, kStride].
template <int kRows>
__device__ inline void lay_down(float* to, int group, const float (&sum)[kRows / 2]) {
  using S = Sizes<kRows>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int output = group * kGroupOutputs + warp % 4 * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    float* place = to + (8 * j + lane % 4 * 2) * S::kStride + output;
    place[0] = sum[4 * j];
    place[S::kStride] = sum[4 * j + 1];
    place[8] = sum[4 * j + 2];
    place[S::kStride + 8] = sum[4 * j + 3];
  }
}

// The end of a tile: the sums of all parts, added in order, of this block's share of the rows, four
// outputs of both halves at a time.
template <int kRows>
struct Ending {
  using S = Sizes<kRows>;
  static constexpr int kFours = kOutputs / 8;  // of a half
  static constexpr int kHeld = 2;              // reads of a thread that go ahead
  const Work& work;
  const Share& share;
  Halves halves;
  int first, count;
  Ahead held[kHeld];

  __device__ Ending(const Work& all, const Share& mine)
      : work(all),
        share(mine),
        halves(halves_of(all.to, all.outputs, mine.tile)),
        first(all.rows * mine.part / all.parts),
        count((all.rows * (mine.part + 1) / all.parts - first) * kFours) {}

  __device__ Ahead ahead(int i) const {
    return read_ahead(work.to, work.outputs, halves, i % kFours * 4, first + i / kFours);
  }
  __device__ void prepare() {
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      const int i = static_cast<int>(threadIdx.x) + n * kThreads;
      if (i < count) held[n] = ahead(i);
    }
  }
  // All reads of a number of parts go out before the first is used.
  template <int kParts>
  __device__ void add(std::uint32_t place, int from, Four& low, Four& high) const {
    Four a[kParts], b[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const std::uint32_t there = in_block(place, min(from + p, work.parts - 1));
      a[p] = load_there(there), b[p] = load_there(there + kOutputs / 2 * 4);
    }
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (from + p >= work.parts) break;
#pragma unroll
      for (int n = 0; n < 4; ++n) low.item[n] += a[p].item[n], high.item[n] += b[p].item[n];
    }
  }
  // Factors of this block's rows; one warp.
  __device__ void find_factors(float* factors) const {
    if (work.factors.squares == nullptr) return;
    for (int r = static_cast<int>(threadIdx.x) % 32; r < count / kFours; r += 32) {
      factors[r] = factor_of(work.factors, first + r);
    }
  }
  __device__ void write(std::uint32_t sums, const float* factors, int i,
                        const Ahead& before) const {
    const int row = first + i / kFours, j = i % kFours * 4;
    const std::uint32_t place = sums + (row * S::kStride + j) * 4;
    Four low{}, high{};
    if (work.parts == 1) {
      low = load_here(place), high = load_here(place + kOutputs / 2 * 4);
    } else {
      for (int part = 0; part < work.parts; part += 4) add<4>(place, part, low, high);
    }
    if (work.factors.squares != nullptr) {
      const float factor = factors[i / kFours];
#pragma unroll
      for (int n = 0; n < 4; ++n) low.item[n] *= factor, high.item[n] *= factor;
    }
    float squares = write_four(work.to, work.outputs, halves, j, row, low, high, before);
    if (work.to.next.squares == nullptr) return;
    static_assert(kFours == 16, "half a warp has a row of the tile");
    const unsigned half = 0xFFFFu << (threadIdx.x & 16);
    for (int n = 8; n > 0; n /= 2) squares += __shfl_xor_sync(half, squares, n);
    if (j == 0) work.to.next.squares[share.tile * kWideMaxRows + row] = squares;
  }
  __device__ void finish(std::uint32_t sums, const float* factors) const {
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      const int i = static_cast<int>(threadIdx.x) + n * kThreads;
      if (i < count) write(sums, factors, i, held[n]);
    }
    for (int i = static_cast<int>(threadIdx.x) + kHeld * kThreads; i < count; i += kThreads) {
      write(sums, factors, i, ahead(i));
    }
  }
};

template <bool publish>
__device__ inline void meet(const Work& work) {
  if (work.parts == 1) return __syncthreads();
  cluster_meet<publish>();
}

template <int kRows>
__global__ __launch_bounds__(kThreads,
                             1) void wide_kernel(const __grid_constant__ CUtensorMap weight_map,
                                                 const __grid_constant__ CUtensorMap row_map,
                                                 const __grid_constant__ Work work) {
  using S = Sizes<kRows>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const int queue_bytes = S::queue_bytes(work.weight_stages, work.row_stages);
  auto* barriers = reinterpret_cast<Barrier*>(memory + queue_bytes);
  auto* factors = reinterpret_cast<float*>(barriers + 4 * kMaxStages);
  const std::uint32_t begin = shared_address(memory);
  const Queue weights{begin, barriers, barriers + kMaxStages, work.weight_stages, S::kWeightBytes};
  const Queue rows{begin + work.weight_stages * S::kWeightBytes, barriers + 2 * kMaxStages,
                   barriers + 3 * kMaxStages, work.row_stages, S::kRowsBytes};
  const Share share = share_of(work);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const bool speaks = threadIdx.x % 32 == 0;
  Ending<kRows> ending(work, share);
  const WeightSource weight_source(&weight_map, work, share);
  const RowSource<kRows> row_source{&row_map};
  if (warp == kWarps && speaks) {
    weights.init(kWarps);
    publish_barriers();
    fence_async_proxy();
  } else if (warp == kWarps + 1 && speaks) {
    prefetch_map(&row_map);
    rows.init(kWarps);
    publish_barriers();
    fence_async_proxy();
  }
  __syncthreads();
  if (warp < kWarps) {
    float sum[kRows / 2] = {};
    const bool adds = work.to.end == WideEnd::kAdd;
    grid_wait();
    if (adds) ending.prepare();  // (angles would hold up the products: they need positions first)
    multiply_all<kRows>(share, weights, rows, warp / 4, sum);
    if (!adds) ending.prepare();
    __syncthreads();  // nobody reads the queues any more
    lay_down<kRows>(reinterpret_cast<float*>(memory), warp / 4, sum);
  } else {
    if (warp == kWarps && speaks) {
      feed(weights, share, weight_source, kWeightsUnderWay);
      grid_launch_next();
    } else if (warp == kWarps + 1 && speaks) {
      grid_wait();
      feed(rows, share, row_source, rows.stages);
    }
    __syncwarp();
    grid_wait();
    if (warp == kWarps + 2) ending.find_factors(factors);
    ending.prepare();
    __syncthreads();
  }
  meet<true>(work);
  ending.finish(begin, factors);
  meet<false>(work);  // others may still read this block's sums
}

}  // namespace higgs_rt::wide
