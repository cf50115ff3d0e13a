// Attention of decode rows as in attention_decode.cu, a whole context a block, in less shared
// memory so that four blocks fit a multiprocessor: of the keys and values of two tiles three are
// under way. With 64 rows of 8 heads every block then runs at a time. A tile of 16 positions must
// lie in one block of the cache. Same order of sums, same bits.
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

struct Work {
  int group;                 // query heads of a key/value head
  int block_tiles;           // tiles of a block of the cache
  std::uint32_t reciprocal;  // 2^32 / block_tiles, rounded down
};

// A row's context by the tiles of a warp.
struct Tiles {
  const std::int32_t* blocks;  // of the sequence
  int last;                    // of its entries
  int block_tiles;
  std::uint32_t reciprocal;
  int length;    // positions; 0 or less: none
  int entry[3];  // of the table, for the first tiles

  // What is read here are inputs of the step, all at once if row i is that of sequence i, as in a
  // recorded step.
  __device__ Tiles(const AttentionShape& shape, const AttentionData& data, const Work& work,
                   int row)
      : last(shape.max_blocks - 1), block_tiles(work.block_tiles), reciprocal(work.reciprocal) {
    const int guess = min(row, shape.sequences - 1);
    find_entries(shape, data, guess);
    length = read_now(data.position + row) + 1;
    const int sequence = read_now(data.sequence + row);
    if (length > 0 && sequence != guess) find_entries(shape, data, sequence);
  }
  __device__ int first_position(int n) const { return tile(n) * kTile; }
  // Positions from that of the n-th tile on.
  __device__ int left(int n) const { return length - first_position(n); }
  __device__ int entry_of(int n) const { return read_now(blocks + min(block(n).whole, last)); }
  // The n-th tile's first slot by its entry.
  __device__ int slot(int n, int of) const { return (of * block_tiles + block(n).rest) * kTile; }

 private:
  __device__ static int tile(int n) { return n * kWarps + static_cast<int>(threadIdx.x) / 32; }
  __device__ Quotient block(int n) const { return divide(tile(n), block_tiles, reciprocal); }
  __device__ void find_entries(const AttentionShape& shape, const AttentionData& data,
                               int sequence) {
    blocks = data.block_table + std::int64_t{sequence} * shape.max_blocks;
#pragma unroll
    for (int n = 0; n < 3; ++n) entry[n] = entry_of(n);
  }
};

// Copies the keys or the values of tiles of the head blockIdx.y.
struct Copies {
  const __nv_bfloat16 *k, *v;  // this lane's of slot 0
  int stride;                  // of a slot
  std::uint32_t place;         // this lane's in a tile
  std::uint64_t once;

  __device__ explicit Copies(const AttentionData& data) : once(once_policy()) {
    const int lane = threadIdx.x % 32;
    stride = static_cast<int>(gridDim.y) * kDim;
    const int at = static_cast<int>(blockIdx.y) * kDim + lane / 16 * stride + lane % 16 * 8;
    k = static_cast<const __nv_bfloat16*>(data.k_cache) + at;
    v = static_cast<const __nv_bfloat16*>(data.v_cache) + at;
    place = chunk_offset<2 * kDim>(lane / 16, lane % 16);
  }
  // A tile with `left` positions, if there are any; what is behind them becomes zero.
  __device__ void bring(const __nv_bfloat16* from, int slot, int left, std::uint32_t to) const {
    if (left > 0) {
      from += std::int64_t{slot} * stride;
      left -= static_cast<int>(threadIdx.x) % 32 / 16;
#pragma unroll
      for (int r = 0; r < kTile; r += 2) {
        copy_async_once(((to + place) ^ ((r & 7) << 4)) + r * 2 * kDim, from, r < left, once);
        from += 2 * stride;
      }
    }
    copy_async_commit();
  }
};

// All tiles of this warp. `start(q)` waits for the kernels ahead and loads the queries; `done(n)`
// is called by all threads after the n-th split, whose sums are in `joined` then. Only the last
// position of the context is of this step: the first tiles are asked for before start(), but where
// that position is among them.
template <class Start, class Done>
__device__ void walk_context(const Tiles& tiles, const Copies& copies, float scale,
                             std::uint32_t halves, const Joined<kDim>& joined, Start start,
                             Done done) {
  const int tiles_log2 = tiles_log2_of(tiles.length);
  const int count = splits_of(tiles.length, tiles_log2) << tiles_log2;
  const int last = (1 << tiles_log2) - 1;  // tile of a split
  const auto behind = [&](std::uint32_t half) {
    half += kHalfBytes;
    return half == halves + kHalves * kHalfBytes ? halves : half;
  };
  int slot = tiles.slot(1, tiles.entry[1]);  // of the next tile
  int entry = tiles.entry[2];                // of the one behind it
  const auto begin = [&] {
    const int first = tiles.slot(0, tiles.entry[0]);
    copies.bring(copies.k, first, tiles.left(0), halves);
    copies.bring(copies.v, first, tiles.left(0), halves + kHalfBytes);
    copies.bring(copies.k, slot, tiles.left(1), halves + 2 * kHalfBytes);
  };
  const auto has_last = [&](int n) { return static_cast<unsigned>(tiles.left(n) - 1) < kTile; };
  const bool early = !has_last(0) && !has_last(1);
  if (early) begin();
  Queries<kDim> q;
  start(q);
  if (!early) begin();
  Sums<kDim> sums;
  sums.clear();
  std::uint32_t half = halves;  // the tile's keys, then its values
  for (int n = 0; n < count; ++n) {
    const int left = tiles.left(n);
    float score[2][2];
    copy_async_wait<2>();
    __syncwarp();
    if (left > 0) score_tile<kDim>(q, half, scale, left, score);
    __syncwarp();
    copies.bring(copies.v, slot, tiles.left(n + 1), half);
    half = behind(half);
    copy_async_wait<2>();
    __syncwarp();
    if (left > 0) add_values<kDim>(score, half, (n & last) == 0, sums);
    __syncwarp();
    slot = tiles.slot(n + 2, entry);
    copies.bring(copies.k, slot, tiles.left(n + 2), half);
    half = behind(half);
    entry = tiles.entry_of(n + 3);
    if ((n & last) != last) continue;
    joined.put(sums);
    sums.clear();
    __syncthreads();
    done(n >> tiles_log2);
    __syncthreads();
  }
}

// Grid (1, key/value heads, rows). What is read before the kernels ahead have finished: as in
// attention_decode.cu.
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attention_whole_kernel(AttentionShape shape, AttentionData data, Work work) {
  extern __shared__ __align__(1024) std::byte shared[];
  grid_launch_next();
  const Tiles tiles(shape, data, work, static_cast<int>(blockIdx.z));
  const int elements = work.group * kDim;
  const int at = static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) * elements;
  auto* out = static_cast<__nv_bfloat16*>(data.out) + at;
  if (tiles.length <= 0) {
    grid_wait();
    for (int e = threadIdx.x; e < elements; e += kThreads) out[e] = __float2bfloat16_rn(0.0f);
    return;
  }
  const Joined<kDim> joined(shared + kWarps * kHalves * kHalfBytes, work.group);
  const auto start = [&](Queries<kDim>& q) {
    grid_wait();
    q.load(static_cast<const __nv_bfloat16*>(data.q) + at, work.group);
  };
  Folded held[kHeld];
  const auto done = [&](int n) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int e = static_cast<int>(threadIdx.x) + i * kThreads;
      if (e >= elements) continue;
      const Folded split = joined.over_warps(e);
      held[i] = n == 0 ? fold_first(split) : fold(held[i], split);
    }
  };
  const std::uint32_t halves = shared_address(shared) + threadIdx.x / 32 * kHalves * kHalfBytes;
  walk_context(tiles, Copies(data), shape.scale * 1.44269504f, halves, joined, start, done);
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
         shape.block_tokens % kTile == 0 &&
         shape.rows * shape.kv_heads > 3 * std::int64_t{memory.multiprocessors};
}

cudaError_t prepare_attention_whole() {
  return cudaFuncSetAttribute(attention_whole_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes(kGroupMost));
}

cudaError_t launch_attention_whole(const AttentionShape& shape, const AttentionData& data,
                                   const AttentionMemory& memory, cudaStream_t stream) {
  const dim3 grid(1, static_cast<unsigned>(shape.kv_heads), static_cast<unsigned>(shape.rows));
  const int block_tiles = shape.block_tokens / kTile;
  const Work work{static_cast<int>(shape.query_heads / shape.kv_heads), block_tiles,
                  ~std::uint32_t{0} / static_cast<std::uint32_t>(block_tiles)};
  return launch(attention_whole_kernel, grid, kThreads,
                static_cast<std::size_t>(shared_bytes(work.group)), stream, shape, data, work);
}

}  // namespace higgs_rt
