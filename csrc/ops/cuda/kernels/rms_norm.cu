#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/read_ahead.cuh"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

namespace {

constexpr unsigned kThreads = 256;

// One block a row. `x` may be `out`: a thread writes only numbers that it alone has read.
template <class W, class A, int N>
__global__ void rms_norm_kernel(const __grid_constant__ RmsNorm a) {
  __shared__ float partial[kThreads / 32];
  read_ahead(a.ahead, blockIdx.x * (kThreads / 32) + threadIdx.x / 32, gridDim.x * (kThreads / 32));
  grid_wait();
  grid_launch_next();
  const float* x = a.x + blockIdx.x * a.size;
  A* out = static_cast<A*>(a.out) + blockIdx.x * a.size;
  float squares = 0.0f;
  for (std::int64_t i = N * threadIdx.x; i < a.size; i += N * kThreads) {
    const auto values = load_pack<N>(x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(values.item[j], values.item[j], squares);
  }
  const float mean = block_sum(squares, partial) / static_cast<float>(a.size);
  const float scale = 1.0f / sqrtf(mean + a.eps);
  for (std::int64_t i = N * threadIdx.x; i < a.size; i += N * kThreads) {
    const auto values = load_pack<N>(x + i);
    const auto weights = load_pack<N>(static_cast<const W*>(a.weight) + i);
    Pack<A, N> result;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      result.item[j] = rounded<A>(values.item[j] * scale * number(weights.item[j]));
    }
    store_pack(out + i, result);
  }
}

}  // namespace

cudaError_t launch_rms_norm(const RmsNorm& a, cudaStream_t stream) {
  return with_type(a.weight_dtype, [&](auto weight) {
    return with_type(a.out_dtype, [&](auto out) {
      using W = decltype(weight);
      using A = decltype(out);
      return launch(by_fours(a.size) ? rms_norm_kernel<W, A, 4> : rms_norm_kernel<W, A, 1>,
                    static_cast<unsigned>(a.rows), kThreads, 0, stream, a);
    });
  });
}

}  // namespace higgs_rt
