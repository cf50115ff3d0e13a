// Attention of decode rows, bf16 on the tensor cores.
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
#include "ops/cuda/kernels/attention_tiles.cuh"

namespace higgs_rt {

namespace {

using namespace decode;  // attention_sums.cuh

constexpr int kBlocksPerMultiprocessor = 3;  // that the shared memory has room for: 768 bytes are
                                             // left, so none of it is static

// Shared memory of the tiles; at the end of a row it takes the pieces of all splits.
template <int D>
__host__ __device__ constexpr std::size_t tiles_bytes(int group) {
  const std::size_t tiles = kWarps * kStages * 2 * kTile * D * 2;
  const std::size_t pieces = sizeof(float) * kMaxSplits * static_cast<std::size_t>(group) * D;
  return tiles > pieces ? tiles : pieces;
}

// The splits of this block, in order. `start(q)` waits for the kernels ahead and loads the queries;
// `done(n)` is called by all threads after the n-th split, whose sums are in `joined` then. With
// `early` only the last position of the context is of this step, and the first tiles are asked for
// before start() but for that position.
template <int D, class Start, class Done>
__device__ void walk_splits(const Context& context, const HeadCache& cache, float scale,
                            std::uint32_t tiles, bool early, const Joined<D>& joined, Start start,
                            Done done) {
  constexpr std::uint32_t kTileBytes = kTile * D * 2;
  const int warp = threadIdx.x / 32, newest = context.length - 1;
  const int mine = (context.splits - 1 - static_cast<int>(blockIdx.x)) / gridDim.x + 1;
  const int count = mine << context.tiles_log2;
  const int last = context.split_tiles() - 1;  // tile of a split
  const auto stage = [&](int n) { return tiles + (warp * kStages + n % kStages) * 2 * kTileBytes; };
  static_assert(kStages == 2);
  int slots[kStages], later[kStages];
#pragma unroll
  for (int n = 0; n < kStages; ++n) {
    slots[n] = context.slot_in(n, context.entry[n]);
    const int row = newest - context.tile_position(n);
    later[n] = early && row >= 0 && row < kTile ? row : -1;
  }
  const std::uint64_t once = once_policy();
  Queries<D> q;
  if (!early) start(q);
#pragma unroll
  for (int n = 0; n < kStages; ++n) {
    if (context.tile_position(n) < context.length) {
      copy_tile<D>(cache, slots[n], later[n], stage(n), stage(n) + kTileBytes, once);
    }
    copy_async_commit();
  }
  bool all = false;  // the newest position came last of all: every copy must be there
  if (early) {
    start(q);
#pragma unroll
    for (int n = 0; n < kStages; ++n) {
      if (later[n] < 0) continue;
      copy_position<D>(cache, slots[n], later[n], stage(n), stage(n) + kTileBytes);
      copy_async_commit();
      all = true;
    }
  }
  int entry = context.entry[2];
  Sums<D> sums;
  sums.clear();
  for (int n = 0; n < count; ++n) {
    if (all) {
      copy_async_wait<0>();
    } else {
      copy_async_wait<kStages - 1>();
    }
    __syncwarp();
    const int left = context.length - context.tile_position(n);
    if (left > 0) {
      add_tile<D>(q, stage(n), stage(n) + kTileBytes, scale, left, (n & last) == 0, sums);
      __syncwarp();
    }
    if (context.tile_position(n + kStages) < context.length) {
      const int slot = context.slot_in(n + kStages, entry);
      copy_tile<D>(cache, slot, -1, stage(n), stage(n) + kTileBytes, once);
      entry = context.entry_in(n + kStages + 1);
    }
    copy_async_commit();
    if ((n & last) != last) continue;
    joined.put(sums);
    sums.clear();
    __syncthreads();
    done(n >> context.tiles_log2);
    __syncthreads();
  }
}

// Grid (splits at a time, key/value heads, rows). The sequence, the position, the block table and
// the positions of earlier steps, which no kernel of the step writes (ops.h), are read before the
// kernels ahead have finished.
template <int D>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attention_decode_kernel(AttentionShape shape, AttentionData data, AttentionMemory memory,
                            int group) {
  extern __shared__ __align__(1024) std::byte shared[];
  grid_launch_next();
  const int elements = group * D;
  const Context context(shape, data, static_cast<int>(blockIdx.z));
  const std::int64_t item = std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y, at = item * elements;
  auto* out = static_cast<__nv_bfloat16*>(data.out) + at;
  if (context.length <= 0) {
    grid_wait();
    for (int e = threadIdx.x; e < elements; e += kThreads) out[e] = __float2bfloat16_rn(0.0f);
    return;
  }
  if (static_cast<int>(blockIdx.x) >= context.splits) return;
  const Joined<D> joined(shared + tiles_bytes<D>(group), group);
  Pieces pieces{memory.partial + item * kMaxSplits * elements,
                memory.scale + item * kMaxSplits * group * 2};
  const int blocks = min(static_cast<int>(gridDim.x), context.splits);
  const auto start = [&](Queries<D>& q) {
    grid_wait();
    q.load(static_cast<const __nv_bfloat16*>(data.q) + at, group);
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
  // Early copies pay only where all blocks run at a time, some of them before the kernels ahead
  // end.
  const bool early = gridDim.x * gridDim.y * gridDim.z <=
                     kBlocksPerMultiprocessor * static_cast<unsigned>(memory.multiprocessors);
  walk_splits<D>(context, HeadCache(data, D), shape.scale * 1.44269504f, shared_address(shared),
                 early, joined, start, done);
  if (blocks > 1) {
    auto* last = reinterpret_cast<bool*>(joined.total);
    if (!is_last_block(memory.counters + item, blocks, last)) return;
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
  cudaError_t result = prepare<64>();
  if (result == cudaSuccess) result = prepare<128>();
  return result == cudaSuccess ? prepare_attention_whole() : result;
}

cudaError_t launch_attention_decode(const AttentionShape& shape, const AttentionData& data,
                                    const AttentionMemory& memory, cudaStream_t stream) {
  const std::int64_t positions = std::int64_t{shape.max_blocks} * shape.block_tokens;
  const std::int64_t splits = (positions + kSplit - 1) / kSplit;
  const std::int64_t items = shape.rows * shape.kv_heads;
  // As many blocks as run at a time: longer ones keep more loads going than more of them.
  if (attention_whole_takes(shape, memory)) {
    return launch_attention_whole(shape, data, memory, stream);
  }
  const std::int64_t room = memory.multiprocessors * kBlocksPerMultiprocessor / items;
  const std::int64_t most = items < kMaxSplitItems ? kMaxSplits : 1;
  const std::int64_t at_once = std::max<std::int64_t>(1, std::min({splits, room, most}));
  const dim3 grid(static_cast<unsigned>(at_once), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>(shape.rows));
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  const bool wide = shape.dim == 128;
  return launch(wide ? attention_decode_kernel<128> : attention_decode_kernel<64>, grid, kThreads,
                wide ? shared_bytes<128>(group) : shared_bytes<64>(group), stream, shape, data,
                memory, group);
}

}  // namespace higgs_rt
