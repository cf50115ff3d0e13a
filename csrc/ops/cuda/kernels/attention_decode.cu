// Attention of rows that stand alone in their sequence (decode), bf16 on the tensor cores.
//
// One block takes a row, a key/value head and every gridDim.x-th split of the context; the heads of
// the group share its keys and values. Its four warps take tiles of 16 positions in turn, each with
// its own pipeline of copies, and keep sums relative to their largest score. At the end of a split
// the sums of the warps are added in order, and at the end of the row those of the splits, by the
// block itself or, over several blocks, by the last one to finish.
#include <algorithm>

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/attention_sums.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt {

namespace {

using namespace decode;  // attention_sums.cuh

constexpr int kTile = 16;  // positions of a warp's tile
constexpr int kStages = 2;
constexpr int kBlocksPerMultiprocessor = 3;  // that the shared memory has room for

// Shared memory of the tiles; at the end of a row it takes the pieces of all splits.
template <int D>
__host__ __device__ constexpr std::size_t tiles_bytes(int group) {
  const std::size_t tiles = kWarps * kStages * 2 * kTile * D * 2;
  const std::size_t pieces = sizeof(float) * kMaxSplits * static_cast<std::size_t>(group) * D;
  return tiles > pieces ? tiles : pieces;
}

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

// Copies a tile of keys and values; lane l < 16 holds the slot of the tile's position l.
template <int D>
__device__ void copy_tile(const Context& context, std::int64_t slot, std::uint32_t keys,
                          std::uint32_t values) {
  constexpr int kChunks = D / 8, kRowsAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
#pragma unroll
  for (int r = 0; r < kTile; r += kRowsAtOnce) {
    const int row = r + lane / kChunks;
    const std::int64_t at = __shfl_sync(kAllLanes, slot, row);
    const std::int64_t from = (at < 0 ? 0 : at) * context.slot_stride + chunk * 8;
    const std::uint32_t to = chunk_offset<2 * D>(row, chunk);
    copy_async(keys + to, context.k + from, at >= 0);
    copy_async(values + to, context.v + from, at >= 0);
  }
}

// Scores of the tile in log2 units: head g at positions 8 j + 2 t and + 1.
template <int D>
__device__ void score_tile(const std::uint32_t (&q)[D / 16][2], std::uint32_t keys, float scale,
                           int left, float (&score)[2][2]) {
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

// Adds a tile with `left` >= 1 positions to the sums.
template <int D>
__device__ void add_tile(const std::uint32_t (&q)[D / 16][2], std::uint32_t keys,
                         std::uint32_t values, float scale, int left, Sums<D>& sums) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  float score[2][2];
  score_tile<D>(q, keys, scale, left, score);
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

template <int D>
__device__ void load_queries(const __nv_bfloat16* q, int group, std::uint32_t (&to)[D / 16][2]) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    const auto* from = reinterpret_cast<const std::uint32_t*>(q + g * D + 16 * k + 2 * t);
    to[k][0] = g < group ? from[0] : 0;
    to[k][1] = g < group ? from[4] : 0;
  }
}

__device__ Context context_of(const AttentionShape& shape, const AttentionData& data,
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

// The splits of this block, in order. `start(q)` loads the queries and is called before any key or
// value is read; `done(n)` is called by all threads after the n-th split, whose sums are in
// `joined` then.
template <int D, class Start, class Done>
__device__ void walk_splits(const Context& context, float scale, std::uint32_t tiles,
                            const Joined<D>& joined, Start start, Done done) {
  constexpr std::uint32_t kTileBytes = kTile * D * 2;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int mine = (context.splits - 1 - static_cast<int>(blockIdx.x)) / gridDim.x + 1;
  const int count = mine << context.tiles_log2;
  const auto slot_in = [&](int n) {
    return n < count ? context.slot(context.tile_position(n, warp) + lane % kTile) : -1;
  };
  const auto stage = [&](int n) { return tiles + (warp * kStages + n % kStages) * 2 * kTileBytes; };
  static_assert(kStages == 2);
  const std::int64_t first = slot_in(0), second = slot_in(1);
  std::uint32_t q[D / 16][2];
  start(q);
  copy_tile<D>(context, first, stage(0), stage(0) + kTileBytes);
  copy_async_commit();
  if (count > 1) copy_tile<D>(context, second, stage(1), stage(1) + kTileBytes);
  copy_async_commit();
  std::int64_t slot = slot_in(2);
  Sums<D> sums;
  sums.clear();
  for (int n = 0; n < count; ++n) {
    copy_async_wait<kStages - 1>();
    __syncwarp();
    const int left = context.length - context.tile_position(n, warp);
    if (left > 0) {
      add_tile<D>(q, stage(n), stage(n) + kTileBytes, scale, left, sums);
      __syncwarp();
    }
    if (n + kStages < count) copy_tile<D>(context, slot, stage(n), stage(n) + kTileBytes);
    copy_async_commit();
    slot = slot_in(n + kStages + 1);
    if ((n + 1) % context.split_tiles() != 0) continue;
    joined.put(sums);
    sums.clear();
    __syncthreads();
    done(n >> context.tiles_log2);
    __syncthreads();
  }
}

// Grid (splits at a time, key/value heads, rows). Without a plan the sequence, the position and the
// block table, which no kernel writes (ops.h), are read before the kernels ahead have finished.
template <int D>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attention_decode_kernel(AttentionShape shape, AttentionData data, AttentionMemory memory,
                            AttentionPlan plan) {
  extern __shared__ __align__(128) std::byte shared[];
  const bool planned = plan.counts != nullptr;
  grid_launch_next();
  if (planned) grid_wait();
  if (planned && blockIdx.z >= plan.counts[0]) return;
  const std::int64_t row = planned ? plan.rows[blockIdx.z] : blockIdx.z;
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  const int elements = group * D, length = data.position[row] + 1;
  const std::int64_t at = (row * shape.query_heads + blockIdx.y * group) * D;
  auto* out = static_cast<__nv_bfloat16*>(data.out) + at;
  if (length <= 0) {
    grid_wait();
    for (int e = threadIdx.x; e < elements; e += kThreads) out[e] = __float2bfloat16_rn(0.0f);
    return;
  }
  const Context context = context_of(shape, data, row, length);
  if (static_cast<int>(blockIdx.x) >= context.splits) return;
  const Joined<D> joined(shared + tiles_bytes<D>(group), group);
  const std::int64_t item = blockIdx.z * shape.kv_heads + blockIdx.y;
  Pieces pieces{memory.partial + item * kMaxSplits * elements,
                memory.scale + item * kMaxSplits * group * 2};
  const int blocks = min(static_cast<int>(gridDim.x), context.splits);
  const auto start = [&](std::uint32_t (&q)[D / 16][2]) {
    grid_wait();
    load_queries<D>(static_cast<const __nv_bfloat16*>(data.q) + at, group, q);
  };
  const auto done = [&](int n) {
    for (int e = threadIdx.x; e < elements; e += kThreads) {
      const Folded split = joined.over_warps(e);
      if (blocks == 1) {
        joined.row[e] = fold(n == 0 ? nothing() : joined.row[e], split);
      } else {
        pieces.put(blockIdx.x + n * gridDim.x, e, group, D, split);
      }
    }
  };
  walk_splits<D>(context, shape.scale * 1.44269504f, shared_address(shared), joined, start, done);
  if (blocks > 1) {
    if (!is_last_block(memory.counters + item, blocks)) return;
    auto* sums = reinterpret_cast<float*>(shared);
    pieces = pieces.brought_to(sums, joined.sum, context.splits, group, D);
  }
  for (int e = threadIdx.x; e < elements; e += kThreads) {
    Folded all = blocks == 1 ? joined.row[e] : nothing();
    for (int s = 0; blocks > 1 && s < context.splits; ++s) {
      all = fold(all, pieces.get(s, e, group, D));
    }
    out[e] = __float2bfloat16_rn(all.sum / all.total);
  }
}

template <int D>
std::size_t shared_bytes(int group) {
  return tiles_bytes<D>(group) + Joined<D>::bytes(group);
}

template <int D>
cudaError_t prepare() {
  const auto bytes = static_cast<int>(shared_bytes<D>(kMaxGroup));
  return cudaFuncSetAttribute(attention_decode_kernel<D>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace

cudaError_t prepare_attention_decode() {
  const cudaError_t result = prepare<64>();
  return result == cudaSuccess ? prepare<128>() : result;
}

cudaError_t launch_attention_decode(const AttentionShape& shape, const AttentionData& data,
                                    const AttentionMemory& memory, std::int64_t decode_rows,
                                    bool single_rows, cudaStream_t stream) {
  const std::int64_t positions = std::int64_t{shape.max_blocks} * shape.block_tokens;
  const std::int64_t splits = (positions + kSplit - 1) / kSplit;
  const std::int64_t items = decode_rows * shape.kv_heads;
  // As many blocks as run at a time: longer ones keep more loads going than more of them.
  const std::int64_t room = memory.multiprocessors * kBlocksPerMultiprocessor / items;
  const std::int64_t most = items < kMaxSplitItems ? kMaxSplits : 1;
  const std::int64_t at_once = std::max<std::int64_t>(1, std::min({splits, room, most}));
  const dim3 grid(static_cast<unsigned>(at_once), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>(decode_rows));
  const AttentionPlan plan = single_rows ? AttentionPlan{} : plan_in(memory.plan, shape.rows);
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  const bool wide = shape.dim == 128;
  return launch(wide ? attention_decode_kernel<128> : attention_decode_kernel<64>, grid, kThreads,
                wide ? shared_bytes<128>(group) : shared_bytes<64>(group), stream, shape, data,
                memory, plan);
}

}  // namespace higgs_rt
