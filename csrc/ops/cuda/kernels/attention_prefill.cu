// Attention of prompt rows, bf16 on the tensor cores.
//
// One block takes a tile of rows of one sequence and the query heads of one key/value head, 64
// pairs of them at most, and walks over the context in tiles of 64 positions, with sums relative to
// the largest score so far. A row's sums depend neither on its place in the tile nor on the others:
// positions beyond its own add exact zeros.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"
#include "ops/cuda/kernels/attention_tile.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kPositions = 64;  // of a tile of keys and values
constexpr unsigned kAllLanes = 0xffffffffu;
static_assert(kTileItems == 16 * kWarps);

struct Context {
  const std::int32_t* blocks;
  const __nv_bfloat16 *k, *v;  // of the head, slot 0
  int length;
  std::int32_t block_tokens;
  std::int64_t slot_stride;
};

// Starts copying positions [begin, begin + kPositions); zeros beyond the context.
template <int D>
__device__ void copy_tile(const Context& context, int begin, std::uint32_t keys,
                          std::uint32_t values) {
  constexpr int kChunks = D / 8, kRowsAtOnce = kThreads / kChunks;
  const int chunk = threadIdx.x % kChunks;
#pragma unroll
  for (int r = 0; r < kPositions; r += kRowsAtOnce) {
    const int row = r + threadIdx.x / kChunks, at = begin + row;
    std::int64_t slot = 0;
    if (at < context.length) {
      slot = std::int64_t{context.blocks[at / context.block_tokens]} * context.block_tokens +
             at % context.block_tokens;
    }
    const std::int64_t from = slot * context.slot_stride + chunk * 8;
    const std::uint32_t to = chunk_offset<2 * D>(row, chunk);
    copy_async(keys + to, context.k + from, at < context.length);
    copy_async(values + to, context.v + from, at < context.length);
  }
}

// Pair i of a tile, of a row and a query head of the group.
struct Pair {
  std::int64_t row;  // of the step
  std::int64_t q;    // where its numbers are, in heads
};
__device__ Pair pair_at(const AttentionShape& shape, const AttentionTile& tile, int i) {
  const int group = static_cast<int>(shape.query_heads / shape.kv_heads);
  const std::int64_t row = std::int64_t{tile.first} + i / group;
  return {row, row * shape.query_heads + blockIdx.y * group + i % group};
}

// 16 pairs of a warp; lane (g, t) = (lane / 4, lane % 4) has pairs g (half 0) and g + 8 (half 1).
template <int D>
struct WarpRows {
  std::uint32_t q[D / 16][4];
  int position[2];  // -1: none
  float largest[2], total[2];
  float sum[D / 8][4];  // numbers 8 n + 2 t and + 1 of row g, then of row g + 8

  __device__ void load(const AttentionShape& shape, const AttentionData& data,
                       const AttentionTile& tile, int first) {
    const int t = threadIdx.x % 4;
    for (int half = 0; half < 2; ++half) {
      const Pair pair = pair_at(shape, tile, first + 8 * half);
      const bool real = pair.row < tile.first + tile.rows;
      position[half] = real ? data.position[pair.row] : -1;
      const auto* from = static_cast<const __nv_bfloat16*>(data.q) + pair.q * D + 2 * t;
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
        const auto* two = reinterpret_cast<const std::uint32_t*>(from + 16 * k);
        q[k][half] = real ? two[0] : 0;
        q[k][half + 2] = real ? two[4] : 0;
      }
      largest[half] = -INFINITY;
      total[half] = 0.0f;
    }
#pragma unroll
    for (auto& part : sum) part[0] = part[1] = part[2] = part[3] = 0.0f;
  }
  __device__ int last_position() const {
    return __reduce_max_sync(kAllLanes, max(position[0], position[1]));
  }
};

// Scores of positions begin + 8 j + 2 t and + 1, in log2 units.
template <int D>
__device__ void score_tile(const WarpRows<D>& rows, std::uint32_t keys, float scale, int begin,
                           float (&score)[kPositions / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kPositions / 8; ++j) {
    float (&c)[4] = score[j];
    c[0] = c[1] = c[2] = c[3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 32; ++k) {
      const Matrices b =
          load_matrices(keys + chunk_offset<2 * D>(8 * j + lane % 8, 4 * k + lane / 8));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t (&a)[4] = rows.q[2 * k + i];
        multiply_add(c, a[0], a[1], a[2], a[3], b.part[2 * i], b.part[2 * i + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = begin + 8 * j + 2 * (lane % 4) + i % 2;
      c[i] = at <= rows.position[i / 2] ? c[i] * scale : -INFINITY;
    }
  }
}

// Turns scores into weights and makes the sums relative to the new largest score.
template <int D>
__device__ void weigh(WarpRows<D>& rows, float (&score)[kPositions / 8][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = rows.largest[half];
#pragma unroll
    for (auto& c : score) largest = fmaxf(largest, fmaxf(c[2 * half], c[2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0.0f : largest;  // no row
    const float keep = exp2f(rows.largest[half] - base);
    rows.largest[half] = largest;
    float total = 0.0f;
#pragma unroll
    for (auto& c : score) {
      c[2 * half] = exp2f(c[2 * half] - base);
      c[2 * half + 1] = exp2f(c[2 * half + 1] - base);
      total += c[2 * half] + c[2 * half + 1];
    }
    rows.total[half] = rows.total[half] * keep + total;
#pragma unroll
    for (auto& part : rows.sum) {
      part[2 * half] *= keep;
      part[2 * half + 1] *= keep;
    }
  }
}

template <int D>
__device__ void add_values(WarpRows<D>& rows, const float (&weight)[kPositions / 8][4],
                           std::uint32_t values) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kPositions / 16; ++k) {
    const float (&w0)[4] = weight[2 * k];
    const float (&w1)[4] = weight[2 * k + 1];
    const std::uint32_t a0 = packed(w0[0], w0[1]), a1 = packed(w0[2], w0[3]);
    const std::uint32_t a2 = packed(w1[0], w1[1]), a3 = packed(w1[2], w1[3]);
#pragma unroll
    for (int r = 0; r < D / 16; ++r) {
      const Matrices b = load_matrices_transposed(
          values + chunk_offset<2 * D>(16 * k + lane % 16, 2 * r + lane / 16));
      multiply_add(rows.sum[2 * r], a0, a1, a2, a3, b.part[0], b.part[1]);
      multiply_add(rows.sum[2 * r + 1], a0, a1, a2, a3, b.part[2], b.part[3]);
    }
  }
}

template <int D>
__device__ void store(const WarpRows<D>& rows, const AttentionShape& shape,
                      const AttentionData& data, const AttentionTile& tile, int first) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = rows.total[half];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    if (rows.position[half] < 0) continue;
    auto* out = static_cast<__nv_bfloat16*>(data.out) +
                pair_at(shape, tile, first + 8 * half).q * D + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const float* sum = rows.sum[n] + 2 * half;
      *reinterpret_cast<std::uint32_t*>(out + 8 * n) = packed(sum[0] / total, sum[1] / total);
    }
  }
}

// Grid (most tiles, key/value heads).
template <int D>
__global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_kernel(AttentionShape shape, AttentionData data, const AttentionTile* tiles) {
  constexpr std::uint32_t kTileBytes = kPositions * D * 2;
  extern __shared__ __align__(128) std::byte shared[];
  grid_launch_next();
  const AttentionTile tile = load_planned(tiles + blockIdx.x);
  if (tile.rows == 0) return;
  grid_wait();
  const std::int64_t head = std::int64_t{blockIdx.y} * D;
  const Context context = {data.block_table + std::int64_t{tile.sequence} * shape.max_blocks,
                           static_cast<const __nv_bfloat16*>(data.k_cache) + head,
                           static_cast<const __nv_bfloat16*>(data.v_cache) + head,
                           tile.length,
                           shape.block_tokens,
                           shape.kv_heads * D};
  const std::uint32_t memory = shared_address(shared);
  const auto copy = [&](int begin) {
    const std::uint32_t to = memory + begin / kPositions % 2 * 2 * kTileBytes;
    if (begin < tile.length) copy_tile<D>(context, begin, to, to + kTileBytes);
    copy_async_commit();
  };
  copy(0);
  const int pair = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  WarpRows<D> rows;
  rows.load(shape, data, tile, pair);
  const int last = rows.last_position();
  const float scale = shape.scale * 1.44269504f;
  for (int begin = 0; begin < tile.length; begin += kPositions) {
    copy(begin + kPositions);
    copy_async_wait<1>();
    __syncthreads();
    if (begin <= last) {
      const std::uint32_t from = memory + begin / kPositions % 2 * 2 * kTileBytes;
      float score[kPositions / 8][4];
      score_tile<D>(rows, from, scale, begin, score);
      weigh<D>(rows, score);
      add_values<D>(rows, score, from + kTileBytes);
    }
    __syncthreads();
  }
  store<D>(rows, shape, data, tile, pair);
}

template <int D>
constexpr int kSharedBytes = 4 * kPositions * D * 2;

template <int D>
cudaError_t prepare() {
  return cudaFuncSetAttribute(attention_prefill_kernel<D>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<D>);
}

}  // namespace

cudaError_t prepare_attention_prefill(AttentionMemory& memory) {
  int device = 0, major = 0, minor = 0;
  cudaError_t result = cudaGetDevice(&device);
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  }
  memory.has_wgmma = major == 9 && minor == 0;
  if (result == cudaSuccess && memory.has_wgmma) result = prepare_attention_prefill_90();
  if (result == cudaSuccess) result = prepare<64>();
  return result == cudaSuccess ? prepare<128>() : result;
}

cudaError_t launch_attention_prefill(const AttentionShape& shape, const AttentionData& data,
                                     const AttentionMemory& memory, std::int64_t tiles,
                                     cudaStream_t stream) {
  const bool wide = shape.dim == 128;
  if (wide && memory.has_wgmma) {
    return launch_attention_prefill_90(shape, data, memory, tiles, stream);
  }
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(shape.kv_heads));
  return launch(wide ? attention_prefill_kernel<128> : attention_prefill_kernel<64>, grid, kThreads,
                static_cast<std::size_t>(wide ? kSharedBytes<128> : kSharedBytes<64>), stream,
                shape, data, static_cast<const AttentionTile*>(memory.plan));
}

}  // namespace higgs_rt
