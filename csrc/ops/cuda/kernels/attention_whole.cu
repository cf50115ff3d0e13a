// Attention of decode rows as in attention_decode.cu, a whole context a block, in less shared
// memory so that four blocks fit a multiprocessor: of the keys and values of two tiles three are
// under way. With 64 rows of 8 heads every block then runs at a time. Same order of sums, same
// bits.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/attention_sums.cuh"
#include "ops/cuda/kernels/attention_tiles.cuh"

namespace higgs_rt {

namespace {

using namespace decode;  // attention_sums.cuh

constexpr int kDim = 128, kGroupMost = 3, kHalves = 3;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr std::uint32_t kHalfBytes = kTile * kDim * 2;  // the keys or the values of a tile
constexpr int kHeld = kGroupMost * kDim / kThreads;     // numbers of the output that a thread ends

// The keys or the values of a tile; lane l < 16 holds the slot of the tile's position l.
__device__ void copy_half(const Context& context, const __nv_bfloat16* from, int slot,
                          std::uint32_t to, std::uint64_t once) {
  constexpr int kChunks = kDim / 8, kRowsAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
#pragma unroll
  for (int r = 0; r < kTile; r += kRowsAtOnce) {
    const int row = r + lane / kChunks;
    const int at = __shfl_sync(kAllLanes, slot, row);
    copy_async_once(to + chunk_offset<2 * kDim>(row, chunk),
                    from + std::int64_t{at < 0 ? 0 : at} * context.slot_stride + chunk * 8, at >= 0,
                    once);
  }
}

// All tiles of this warp. `start(q)` waits for the kernels ahead and loads the queries; `done(n)`
// is called by all threads after the n-th split, whose sums are in `joined` then. With `early` only
// the last position of the context is of this step, and the first tiles are asked for before
// start(), but where that position is among them.
template <class Start, class Done>
__device__ void walk_context(const Context& context, float scale, std::uint32_t halves,
                             const Joined<kDim>& joined, bool early, Start start, Done done) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count = context.splits << context.tiles_log2;
  const auto position_in = [&](int n) { return context.tile_position(n, warp); };
  const auto slot_in = [&](int n) {
    return n < count ? static_cast<int>(context.slot(position_in(n) + lane % kTile)) : -1;
  };
  const auto half = [&](int i) { return halves + (warp * kHalves + i % kHalves) * kHalfBytes; };
  const std::uint64_t once = once_policy();
  const auto bring = [&](bool wanted, const __nv_bfloat16* from, int slot, int i) {
    if (wanted) copy_half(context, from, slot, half(i), once);
    copy_async_commit();
  };
  int next = -1, second = -1;
  const auto begin = [&] {
    const int first = slot_in(0);
    next = slot_in(1), second = slot_in(2);
    bring(true, context.k, first, 0);
    bring(true, context.v, first, 1);
    bring(1 < count, context.k, next, 2);
  };
  const auto has_last = [&](int n) {
    return n < count && static_cast<unsigned>(context.length - 1 - position_in(n)) < kTile;
  };
  if (has_last(0) || has_last(1)) early = false;
  if (early) begin();
  std::uint32_t q[kDim / 16][2];
  start(q);
  if (!early) begin();
  Sums<kDim> sums;
  sums.clear();
  for (int n = 0, at = 0; n < count; ++n, at = (at + 2) % kHalves) {
    const int left = context.length - position_in(n);
    float score[2][2];
    copy_async_wait<2>();
    __syncwarp();
    if (left > 0) score_tile<kDim>(q, half(at), scale, left, score);
    __syncwarp();
    bring(n + 1 < count, context.v, next, at);
    copy_async_wait<2>();
    __syncwarp();
    if (left > 0) add_values<kDim>(score, half(at + 1), sums);
    __syncwarp();
    bring(n + 2 < count, context.k, second, at + 1);
    next = second;
    second = slot_in(n + 3);
    if ((n + 1) % context.split_tiles() != 0) continue;
    joined.put(sums);
    sums.clear();
    __syncthreads();
    done(n >> context.tiles_log2);
    __syncthreads();
  }
}

// Grid (1, key/value heads, rows). What is read before the kernels ahead have finished: as in
// attention_decode.cu.
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attention_whole_kernel(AttentionShape shape, AttentionData data, unsigned multiprocessors) {
  extern __shared__ __align__(128) std::byte shared[];
  grid_launch_next();
  const std::int64_t row = blockIdx.z;
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  const int elements = group * kDim, length = data.position[row] + 1;
  const std::int64_t at = (row * shape.query_heads + blockIdx.y * group) * kDim;
  auto* out = static_cast<__nv_bfloat16*>(data.out) + at;
  if (length <= 0) {
    grid_wait();
    for (int e = threadIdx.x; e < elements; e += kThreads) out[e] = __float2bfloat16_rn(0.0f);
    return;
  }
  const Context context = context_of(shape, data, row, length);
  const Joined<kDim> joined(shared + kWarps * kHalves * kHalfBytes, group);
  const auto start = [&](std::uint32_t (&q)[kDim / 16][2]) {
    grid_wait();
    load_queries<kDim>(static_cast<const __nv_bfloat16*>(data.q) + at, group, q);
  };
  Folded held[kHeld];
  const auto done = [&](int n) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int e = static_cast<int>(threadIdx.x) + i * kThreads;
      if (e < elements) held[i] = fold(n == 0 ? nothing() : held[i], joined.over_warps(e));
    }
  };
  // As in attention_decode.cu: where all blocks run at a time.
  const bool early = gridDim.y * gridDim.z <= kBlocksPerMultiprocessor * multiprocessors;
  walk_context(context, shape.scale * 1.44269504f, shared_address(shared), joined, early, start,
               done);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int e = static_cast<int>(threadIdx.x) + i * kThreads;
    if (e < elements) out[e] = __float2bfloat16_rn(held[i].sum / held[i].total);
  }
}

int shared_bytes(int group) {
  return kWarps * kHalves * static_cast<int>(kHalfBytes) +
         static_cast<int>(Joined<kDim>::warps_bytes(group));
}

}  // namespace

bool attention_whole_takes(const AttentionShape& shape, const AttentionMemory& memory) {
  return shape.dim == kDim && shape.query_heads <= kGroupMost * shape.kv_heads &&
         shape.rows * shape.kv_heads > 3 * std::int64_t{memory.multiprocessors};
}

cudaError_t prepare_attention_whole() {
  return cudaFuncSetAttribute(attention_whole_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes(kGroupMost));
}

cudaError_t launch_attention_whole(const AttentionShape& shape, const AttentionData& data,
                                   const AttentionMemory& memory, cudaStream_t stream) {
  const dim3 grid(1, static_cast<unsigned>(shape.kv_heads), static_cast<unsigned>(shape.rows));
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  return launch(attention_whole_kernel, grid, kThreads,
                static_cast<std::size_t>(shared_bytes(group)), stream, shape, data,
                static_cast<unsigned>(memory.multiprocessors));
}

}  // namespace higgs_rt
