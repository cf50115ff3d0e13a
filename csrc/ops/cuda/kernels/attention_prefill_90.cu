// Attention of prompt rows on wgmma: bf16, heads of 128 numbers (sm_90a; see CMakeLists.txt).
//
// A block of four warps takes a tile of the plan and the query heads of one key/value head, 64
// pairs of them at most, and walks over the context in tiles of 64 positions, of which three are
// asked for at once: a prompt of 192 positions waits for the memory once. Scores and sums are
// products of all pairs, with sums relative to the largest score so far. A row's sums depend
// neither on its place in the tile nor on the others: positions beyond its own add exact zeros.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/attention_tile.cuh"
#include "ops/cuda/kernels/attention_wgmma.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"
#include "ops/cuda/kernels/wide_parts.cuh"

namespace higgs_rt {

namespace {

using bf16 = __nv_bfloat16;

constexpr int kThreads = 128, kDim = 128, kChunks = kDim / 8;      // chunks of 16 bytes
constexpr int kPositions = 64;                                     // of a tile of keys and values
constexpr int kBuffers = 3;                                        // such tiles under way
constexpr int kHalfBytes = 64 * 128, kTileBytes = 2 * kHalfBytes;  // 64 numbers of 64 rows; all
constexpr int kSharedBytes = kTileBytes * (1 + 2 * kBuffers);
constexpr unsigned kAllLanes = 0xffffffffu;
static_assert(kTileItems == 64);

// Byte offset of a chunk of a row of a tile: two halves of 64 numbers, swizzled by 128 bytes.
__device__ std::uint32_t place_of(int row, int chunk) {
  return static_cast<std::uint32_t>(chunk / 8 * kHalfBytes) + chunk_offset<128>(row, chunk % 8);
}

// A thread's place. A warp has 16 pairs of a row and a query head, lane l knows pair l % 16.
struct Place {
  int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  // Of the chunks that a lane brings and takes away: two rows a step.
  __device__ int chunk() const { return lane % kChunks; }
  __device__ int row(int step) const { return 2 * step + lane / kChunks; }  // of the warp's 16
  __device__ std::uint32_t offset(int step) const {                         // among all queries
    return place_of(16 * warp + row(step), chunk());
  }
};

// A lane's pair: which of the step's queries, at which position of its sequence; -1: none.
struct Pair {
  int query = -1, position = -1;
  __device__ Pair(const AttentionShape& shape, const AttentionData& data, const AttentionTile& tile,
                  const Place& at) {
    const int heads = static_cast<int>(shape.query_heads / shape.kv_heads);
    const int item = 16 * at.warp + at.lane % 16, row = item / heads;
    if (row >= tile.rows) return;
    query = (tile.first + row) * static_cast<int>(shape.query_heads) +
            static_cast<int>(blockIdx.x) * heads + item % heads;
    position = data.position[tile.first + row];
  }
};

// Brings the keys and values of a context. Of a tile a warp has two rows of 16 chunks at a time,
// every 2 kWarps.
struct Feed {
  static constexpr int kWarps = kThreads / 32, kSteps = kPositions / 2 / kWarps;
  const AttentionShape& shape;
  const AttentionData& data;
  const AttentionTile& tile;
  const Place& at;

  // Of row l of the warp's 16 in tile n, in lane l; -1 beyond the context.
  __device__ int slot(int n) const {
    const int row = at.lane % 16;
    const int position = n * kPositions + 2 * (at.warp + row / 2 * kWarps) + row % 2;
    if (position >= tile.length) return -1;
    const std::int64_t block =
        std::int64_t{tile.sequence} * shape.max_blocks + position / shape.block_tokens;
    return data.block_table[block] * shape.block_tokens + position % shape.block_tokens;
  }
  // Starts copying tile n to `keys`, values behind it.
  __device__ void ask(int n, int slots, std::uint32_t keys) const {
    if (n * kPositions < tile.length) {
      const std::int64_t first = std::int64_t{blockIdx.x} * kDim + at.chunk() * 8;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int slot = __shfl_sync(kAllLanes, slots, 2 * i + at.lane / kChunks);
        const int row = 2 * (at.warp + i * kWarps) + at.lane / kChunks;
        const std::int64_t from = max(slot, 0) * shape.kv_heads * kDim + first;
        const std::uint32_t to = keys + place_of(row, at.chunk());
        copy_async(to, static_cast<const bf16*>(data.k_cache) + from, slot >= 0);
        copy_async(to + kTileBytes, static_cast<const bf16*>(data.v_cache) + from, slot >= 0);
      }
    }
    copy_async_commit();
  }
};

__device__ void ask_queries(const AttentionData& data, const Place& at, const Pair& pair,
                            std::uint32_t queries) {
  const auto* from = static_cast<const bf16*>(data.q) + at.chunk() * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int query = __shfl_sync(kAllLanes, pair.query, at.row(i));
    copy_async(queries + at.offset(i), from + std::int64_t{max(query, 0)} * kDim, query >= 0);
  }
}

// Rows g and g + 8 of a warp's 16, g = lane / 4; numbers 8 j + 2 (lane % 4) and + 1 of each.
struct Sums {
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
  float sum[64];

  // Turns scores of positions begin + ... into weights and makes the sums relative to the new
  // largest score. `scale` is for powers of two.
  __device__ void weigh(float (&score)[32], const int (&position)[2], int begin, float scale) {
    const int first = begin + 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = largest[half];
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& s = score[i / 2 * 4 + half * 2 + i % 2];
        s = first + i / 2 * 8 + i % 2 <= position[half] ? s : -INFINITY;
        top = fmaxf(top, s);
      }
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      const float base = top == -INFINITY ? 0.0f : top;                 // no position yet
      const float keep = power_of_two((largest[half] - base) * scale);  // exactly 1 for equal ones
      largest[half] = top;
      float added = 0.0f;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& s = score[i / 2 * 4 + half * 2 + i % 2];
        s = power_of_two(__fmaf_rn(s, scale, -base * scale));
        added += s;
      }
      total[half] = __fmaf_rn(total[half], keep, added);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        sum[4 * j + 2 * half] *= keep;
        sum[4 * j + 2 * half + 1] *= keep;
      }
    }
  }
};

// Four warps: a tile of keys, with that of the values behind it.
__device__ void add_tile(Sums& sums, std::uint32_t queries, std::uint32_t keys,
                         const int (&position)[2], int begin, float scale) {
  float score[32];
#pragma unroll
  for (float& s : score) s = 0.0f;
  begin_products();
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    const std::uint32_t half = i / 4 * kHalfBytes;
    wide::multiply(score, wide::tile_at(queries + half) + 2 * (i % 4),
                   wide::tile_at(keys + half) + 2 * (i % 4));
  }
  end_products();
  wait_products<0>();
  wide::settle(score);
  sums.weigh(score, position, begin, scale);
  std::uint32_t weight[kPositions / 16][4];
#pragma unroll
  for (int i = 0; i < kPositions / 16; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      weight[i][j] = packed(score[8 * i + 2 * j], score[8 * i + 2 * j + 1]);
  }
  begin_products();
#pragma unroll
  for (int i = 0; i < kPositions / 16; ++i) {
    multiply_values(sums.sum, weight[i], values_at(keys + kTileBytes, kHalfBytes) + 128 * i);
  }
  end_products();
  wait_products<0>();
  wide::settle(sums.sum);
}

// Results go through the place of the queries, each warp's through its own rows.
__device__ void write(const Sums& sums, const AttentionData& data, const Place& at,
                      const Pair& pair, unsigned char* queries) {
  const std::uint32_t place = shared_address(queries);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = sums.total[half];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    const float factor = total > 0.0f ? 1.0f / total : 0.0f;
    const int row = 16 * at.warp + at.lane / 4 + 8 * half;
#pragma unroll
    for (int j = 0; j < kChunks; ++j) {
      const float* sum = sums.sum + 4 * j + 2 * half;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(place + place_of(row, j) + at.lane % 4 * 4),
                   "r"(packed(sum[0] * factor, sum[1] * factor))
                   : "memory");
    }
  }
  __syncwarp();
  auto* out = static_cast<bf16*>(data.out) + at.chunk() * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int query = __shfl_sync(kAllLanes, pair.query, at.row(i));
    const auto numbers = load_pack<8>(reinterpret_cast<const bf16*>(queries + at.offset(i)));
    if (query >= 0) store_pack(out + std::int64_t{query} * kDim, numbers);
  }
}

// Grid (key/value heads, most tiles).
__global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_90_kernel(const __grid_constant__ AttentionShape shape,
                                const __grid_constant__ AttentionData data,
                                const AttentionTile* tiles) {
  extern __shared__ __align__(1024) unsigned char memory[];
  grid_launch_next();
  // Positions and block tables are there before the step's kernels run (ops.h), the plan before
  // the kernel behind it may begin.
  const AttentionTile tile = load_planned(tiles + blockIdx.y);
  if (tile.rows == 0) return;
  const Place at;
  const Pair pair(shape, data, tile, at);
  const Feed feed{shape, data, tile, at};
  int slots[kBuffers];
#pragma unroll
  for (int n = 0; n < kBuffers; ++n) slots[n] = feed.slot(n);
  const int position[2] = {__shfl_sync(kAllLanes, pair.position, at.lane / 4),
                           __shfl_sync(kAllLanes, pair.position, at.lane / 4 + 8)};
  const std::uint32_t queries = shared_address(memory), keys = queries + kTileBytes;
  grid_wait();
  ask_queries(data, at, pair, queries);
#pragma unroll
  for (int n = 0; n < kBuffers; ++n) feed.ask(n, slots[n], keys + n * 2 * kTileBytes);
  const float scale = shape.scale * 1.44269504f;
  Sums sums;
#pragma unroll
  for (float& s : sums.sum) s = 0.0f;
  int buffer = 0, next = feed.slot(kBuffers);
  for (int n = 0; n * kPositions < tile.length; ++n) {
    const std::uint32_t from = keys + buffer * 2 * kTileBytes;
    copy_async_wait<kBuffers - 1>();
    fence_async_proxy();
    __syncthreads();
    add_tile(sums, queries, from, position, n * kPositions, scale);
    __syncthreads();
    feed.ask(n + kBuffers, next, from);
    next = feed.slot(n + kBuffers + 1);
    if (++buffer == kBuffers) buffer = 0;
  }
  copy_async_wait<0>();
  __syncthreads();
  write(sums, data, at, pair, memory);
}

}  // namespace

cudaError_t prepare_attention_prefill_90() {
  return cudaFuncSetAttribute(attention_prefill_90_kernel,
                              cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
}

cudaError_t launch_attention_prefill_90(const AttentionShape& shape, const AttentionData& data,
                                        const AttentionMemory& memory, std::int64_t tiles,
                                        cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shape.kv_heads), static_cast<unsigned>(tiles));
  return launch(attention_prefill_90_kernel, grid, kThreads, kSharedBytes, stream, shape, data,
                static_cast<const AttentionTile*>(memory.plan));
}

}  // namespace higgs_rt
