// Attention of any shape: lanes over the head, warps over the positions.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/numbers.cuh"

namespace higgs_rt {

namespace {

constexpr int kWarps = 8;
constexpr int kLaneDims = kMaxAttentionDim / 32;

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// Weighted sum of the values of some positions, relative to the largest score among them.
struct Part {
  float largest = -INFINITY;
  float total = 0.0f;
  float sum[kLaneDims] = {};  // this lane's numbers of the head: lane, lane + 32, …
};

__device__ std::int64_t slot_of(const AttentionShape& shape, const std::int32_t* blocks, int at) {
  return std::int64_t{blocks[at / shape.block_tokens]} * shape.block_tokens +
         at % shape.block_tokens;
}

// Grid (rows, query heads). Warp w takes positions w, w + kWarps, …; the first warp adds the parts
// in order.
template <class T>
__global__ void __launch_bounds__(kWarps * 32)
    attention_plain_kernel(AttentionShape shape, AttentionData data) {
  __shared__ float largest[kWarps], totals[kWarps], sums[kWarps][kMaxAttentionDim];
  grid_wait();
  grid_launch_next();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = static_cast<int>(shape.dim);
  const std::int64_t row = blockIdx.x, head = blockIdx.y;
  const std::int64_t kv_head = head / (shape.query_heads / shape.kv_heads);
  const std::int32_t* blocks =
      data.block_table + std::int64_t{data.sequence[row]} * shape.max_blocks;
  const std::int64_t at_row = (row * shape.query_heads + head) * dim;
  float q[kLaneDims];
#pragma unroll
  for (int j = 0; j < kLaneDims; ++j) {
    const int i = lane + 32 * j;
    q[j] = i < dim ? number(static_cast<const T*>(data.q)[at_row + i]) * shape.scale : 0.0f;
  }
  Part part;
  const int length = data.position[row] + 1;
  for (int p = warp; p < length; p += kWarps) {
    const std::int64_t at = (slot_of(shape, blocks, p) * shape.kv_heads + kv_head) * dim;
    const T* k = static_cast<const T*>(data.k_cache) + at;
    const T* v = static_cast<const T*>(data.v_cache) + at;
    float dot = 0.0f;
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      if (lane + 32 * j < dim) dot = fmaf(q[j], number(k[lane + 32 * j]), dot);
    }
    const float score = warp_sum(dot), grown = fmaxf(part.largest, score);
    const float keep = expf(part.largest - grown), weight = expf(score - grown);
    part.largest = grown;
    part.total = fmaf(part.total, keep, weight);
#pragma unroll
    for (int j = 0; j < kLaneDims; ++j) {
      if (lane + 32 * j < dim) {
        part.sum[j] = fmaf(part.sum[j], keep, weight * number(v[lane + 32 * j]));
      }
    }
  }
  largest[warp] = part.largest;
  totals[warp] = part.total;
#pragma unroll
  for (int j = 0; j < kLaneDims; ++j) sums[warp][lane + 32 * j] = part.sum[j];
  __syncthreads();
  float top = largest[0];
  for (int w = 1; w < kWarps; ++w) top = fmaxf(top, largest[w]);
  for (int i = threadIdx.x; i < dim; i += kWarps * 32) {
    float total = 0.0f, sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) {
      const float share = expf(largest[w] - top);
      total = fmaf(totals[w], share, total);
      sum = fmaf(sums[w][i], share, sum);
    }
    static_cast<T*>(data.out)[at_row + i] = rounded<T>(length > 0 ? sum / total : 0.0f);
  }
}

}  // namespace

cudaError_t launch_attention_plain(const AttentionShape& shape, const AttentionData& data,
                                   cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(shape.query_heads));
  return with_type(data.dtype, [&](auto type) {
    return launch(attention_plain_kernel<decltype(type)>, grid, kWarps * 32, 0, stream, shape,
                  data);
  });
}

}  // namespace higgs_rt
