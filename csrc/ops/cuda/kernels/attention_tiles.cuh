// Tiles of 16 positions of the paged cache, for rows that stand alone in their sequence: how a warp
// copies one and adds it to its sums.
#pragma once

#include "ops/cuda/kernels/attention_sums.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt::decode {

inline constexpr int kTile = 16;  // positions of a warp's tile
inline constexpr int kStages = 2;

// The part of a context that one block works on.
struct Context {
  const std::int32_t* blocks;
  const __nv_bfloat16 *k, *v;  // of the head, slot 0
  int length;
  int tiles_log2;  // of the tiles of one warp in a split
  int splits;
  std::int32_t block_tokens;
  std::int64_t slot_stride;

  __device__ int split_tiles() const { return 1 << tiles_log2; }
  // First position of the n-th tile that this warp meets.
  __device__ int tile_position(int n, int warp) const {
    const int split = blockIdx.x + gridDim.x * (n >> tiles_log2);
    const int tile = (split << tiles_log2) + (n & (split_tiles() - 1));
    return (tile * kWarps + warp) * kTile;
  }
  __device__ std::int64_t slot(int position) const {
    if (position >= length) return -1;
    return std::int64_t{blocks[position / block_tokens]} * block_tokens + position % block_tokens;
  }
};

// Of the row `row` with `length` positions and the key/value head blockIdx.y.
__device__ inline Context context_of(const AttentionShape& shape, const AttentionData& data,
                                     std::int64_t row, int length) {
  static_assert(kSplit == 2 * kTile * kWarps);
  int tiles_log2 = 1;
  while ((kTile * kWarps * kMaxSplits << tiles_log2) < length) ++tiles_log2;
  const int split = kTile * kWarps << tiles_log2;
  const std::int64_t head = blockIdx.y * shape.dim;
  return {data.block_table + std::int64_t{data.sequence[row]} * shape.max_blocks,
          static_cast<const __nv_bfloat16*>(data.k_cache) + head,
          static_cast<const __nv_bfloat16*>(data.v_cache) + head,
          length,
          tiles_log2,
          (length + split - 1) / split,
          shape.block_tokens,
          shape.kv_heads * shape.dim};
}

inline constexpr std::int64_t kLater = -2;  // in place of a slot: copied by copy_position()

// Copies a tile of keys and values; lane l < 16 holds the slot of the tile's position l.
template <int D>
__device__ inline void copy_tile(const Context& context, std::int64_t slot, std::uint32_t keys,
                                 std::uint32_t values, std::uint64_t once) {
  constexpr int kChunks = D / 8, kRowsAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
#pragma unroll
  for (int r = 0; r < kTile; r += kRowsAtOnce) {
    const int row = r + lane / kChunks;
    const std::int64_t at = __shfl_sync(kAllLanes, slot, row);
    if (at == kLater) continue;
    const std::int64_t from = (at < 0 ? 0 : at) * context.slot_stride + chunk * 8;
    const std::uint32_t to = chunk_offset<2 * D>(row, chunk);
    copy_async_once(keys + to, context.k + from, at >= 0, once);
    copy_async_once(values + to, context.v + from, at >= 0, once);
  }
}

// Copies the keys and values of row `row` of a tile.
template <int D>
__device__ inline void copy_position(const Context& context, std::int64_t slot, int row,
                                     std::uint32_t keys, std::uint32_t values) {
  constexpr int kChunks = D / 8;
  static_assert(2 * kChunks <= 32);
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
  if (lane >= 2 * kChunks) return;
  const __nv_bfloat16* from = lane < kChunks ? context.k : context.v;
  copy_async((lane < kChunks ? keys : values) + chunk_offset<2 * D>(row, chunk),
             from + slot * context.slot_stride + chunk * 8, true);
}

// Scores of the tile in log2 units: head g at positions 8 j + 2 t and + 1.
template <int D>
__device__ inline void score_tile(const std::uint32_t (&q)[D / 16][2], std::uint32_t keys,
                                  float scale, int left, float (&score)[2][2]) {
  const int lane = threadIdx.x % 32;
  float c[2][4] = {};
#pragma unroll
  for (int k = 0; k < D / 32; ++k) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const Matrices b =
          load_matrices(keys + chunk_offset<2 * D>(8 * j + lane % 8, 4 * k + lane / 8));
      multiply_add(c[j], q[2 * k][0], 0, q[2 * k][1], 0, b.part[0], b.part[1]);
      multiply_add(c[j], q[2 * k + 1][0], 0, q[2 * k + 1][1], 0, b.part[2], b.part[3]);
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int position = 8 * j + 2 * (lane % 4) + i;
      score[j][i] = position < left ? c[j][i] * scale : -INFINITY;
    }
  }
}

// Adds the values of a tile by its scores.
template <int D>
__device__ inline void add_values(float (&score)[2][2], std::uint32_t values, Sums<D>& sums) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  float largest = fmaxf(fmaxf(score[0][0], score[0][1]), fmaxf(score[1][0], score[1][1]));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  largest = fmaxf(largest, sums.largest);
  const float keep = exp2f(sums.largest - largest);
  sums.largest = largest;
#pragma unroll
  for (auto& pair : score) {
    pair[0] = exp2f(pair[0] - largest);
    pair[1] = exp2f(pair[1] - largest);
  }
  sums.total = sums.total * keep + ((score[0][0] + score[0][1]) + (score[1][0] + score[1][1]));
  const float keep0 = __shfl_sync(kAllLanes, keep, 8 * t);
  const float keep1 = __shfl_sync(kAllLanes, keep, 8 * t + 4);
  const std::uint32_t b0 = packed(score[0][0], score[0][1]);
  const std::uint32_t b1 = packed(score[1][0], score[1][1]);
#pragma unroll
  for (int r = 0; r < D / 16; ++r) {
    const Matrices a = load_matrices_transposed(
        values + chunk_offset<2 * D>(lane / 16 * 8 + lane % 8, 2 * r + lane / 8 % 2));
    float (&c)[4] = sums.sum[r];
    c[0] *= keep0;
    c[1] *= keep1;
    c[2] *= keep0;
    c[3] *= keep1;
    multiply_add(c, a.part[0], a.part[1], a.part[2], a.part[3], b0, b1);
  }
}

// Adds a tile with `left` >= 1 positions to the sums.
template <int D>
__device__ inline void add_tile(const std::uint32_t (&q)[D / 16][2], std::uint32_t keys,
                                std::uint32_t values, float scale, int left, Sums<D>& sums) {
  float score[2][2];
  score_tile<D>(q, keys, scale, left, score);
  add_values<D>(score, values, sums);
}

template <int D>
__device__ inline void load_queries(const __nv_bfloat16* q, int group,
                                    std::uint32_t (&to)[D / 16][2]) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    const auto* from = reinterpret_cast<const std::uint32_t*>(q + g * D + 16 * k + 2 * t);
    to[k][0] = g < group ? from[0] : 0;
    to[k][1] = g < group ? from[4] : 0;
  }
}

}  // namespace higgs_rt::decode
