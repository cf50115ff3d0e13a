// Embedding of text ids and of audio columns, and the gathering of columns.
#include "batch/step_batch.h"
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

namespace {

constexpr unsigned kThreads = 128;

unsigned pieces(std::int64_t size, std::int64_t width) {
  return static_cast<unsigned>((size + kThreads * width - 1) / (kThreads * width));
}

__device__ const std::int32_t* column_of(const ColumnSource& source, std::int64_t row,
                                         std::int64_t codebooks) {
  if (source.index == nullptr) return source.given + row * codebooks;
  const std::int32_t at = source.index[row];
  if (at < StepBatch::kFeedback) return source.given + at * codebooks;
  return source.last + (at - StepBatch::kFeedback) * codebooks;
}

// Grid (rows, pieces of a row).
template <class T, int N>
__global__ void embed_text_kernel(EmbedText a) {
  grid_wait();
  grid_launch_next();
  const std::int64_t row = blockIdx.x;
  const std::int64_t i = std::int64_t{N} * (blockIdx.y * kThreads + threadIdx.x);
  if (i >= a.size) return;
  const std::int32_t id = a.ids[row];
  Pack<float, N> out;
  if (id < a.vocab) {
    const auto from = load_pack<N>(static_cast<const T*>(a.table) + id * a.size + i);
#pragma unroll
    for (int j = 0; j < N; ++j) out.item[j] = number(from.item[j]);
  } else {
    out = load_pack<N>(a.table_rows + (id - a.vocab) * a.size + i);
  }
  store_pack(a.out + row * a.size + i, out);
}

__global__ void gather_columns_kernel(ColumnSource source, std::int64_t rows,
                                      std::int64_t codebooks, std::int32_t* out) {
  grid_wait();
  grid_launch_next();
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * codebooks) return;
  out[i] = column_of(source, i / codebooks, codebooks)[i % codebooks];
}

// Grid (rows, pieces of a row). The codebooks are added in order, as on the CPU: equal bits.
template <class T, int N>
__global__ void embed_columns_kernel(EmbedColumns a) {
  grid_wait();
  grid_launch_next();
  const std::int64_t row = blockIdx.x;
  const std::int64_t i = std::int64_t{N} * (blockIdx.y * kThreads + threadIdx.x);
  if (i >= a.size) return;
  const std::int32_t* column = column_of(a.source, row, a.codebooks);
  Pack<float, N> out;
#pragma unroll 8
  for (std::int64_t k = 0; k < a.codebooks; ++k) {
    const std::int64_t from = (k * a.vocab + column[k]) * a.size + i;
    const auto term = load_pack<N>(static_cast<const T*>(a.table) + from);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float value = number(term.item[j]);
      out.item[j] = k == 0 ? value : out.item[j] + value;
    }
  }
  store_pack(a.out + row * a.size + i, out);
}

}  // namespace

cudaError_t launch_embed_text(const EmbedText& a, cudaStream_t stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const bool fours = by_fours(a.size);
    const dim3 grid(static_cast<unsigned>(a.rows), pieces(a.size, fours ? 4 : 1));
    return launch(fours ? embed_text_kernel<T, 4> : embed_text_kernel<T, 1>, grid, kThreads, 0,
                  stream, a);
  });
}

cudaError_t launch_gather_columns(const ColumnSource& source, std::int64_t rows,
                                  std::int64_t codebooks, std::int32_t* out, cudaStream_t stream) {
  return launch(gather_columns_kernel, pieces(rows * codebooks, 1), kThreads, 0, stream, source,
                rows, codebooks, out);
}

cudaError_t launch_embed_columns(const EmbedColumns& a, cudaStream_t stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const bool fours = by_fours(a.size);
    const dim3 grid(static_cast<unsigned>(a.rows), pieces(a.size, fours ? 4 : 1));
    return launch(fours ? embed_columns_kernel<T, 4> : embed_columns_kernel<T, 1>, grid, kThreads,
                  0, stream, a);
  });
}

}  // namespace higgs_rt
