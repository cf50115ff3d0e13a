#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

namespace {

constexpr unsigned kThreads = 256;

// One block a row. `x` may be `out`: a thread writes only numbers that it alone has read. A thread
// holds its first kHeld packs of both; the weights come before the kernels ahead have finished.
template <class W, class A, int N>
__global__ void rms_norm_kernel(RmsNorm a) {
  constexpr int kHeld = N == 1 ? 1 : 4;
  __shared__ float partial[kThreads / 32];
  const std::int64_t first = N * threadIdx.x, stride = N * kThreads;
  const auto* weight = static_cast<const W*>(a.weight);
  grid_launch_next();  // the product behind asks for its first weights meanwhile
  Pack<W, N> weights[kHeld];
  Pack<float, N> held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * stride < a.size) weights[k] = load_pack<N>(weight + first + k * stride);
  }
  grid_wait();
  const float* x = a.x + blockIdx.x * a.size;
  A* out = static_cast<A*>(a.out) + blockIdx.x * a.size;
  float squares = 0.0f;
  const auto add = [&](const Pack<float, N>& values) {
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(values.item[j], values.item[j], squares);
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * stride < a.size) held[k] = load_pack<N>(x + first + k * stride);
  }
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * stride < a.size) add(held[k]);
  }
  const std::int64_t rest = first + kHeld * stride;
  for (std::int64_t i = rest; i < a.size; i += stride) add(load_pack<N>(x + i));
  const float mean = block_sum(squares, partial) / static_cast<float>(a.size);
  const float scale = 1.0f / sqrtf(mean + a.eps);
  const auto write = [&](std::int64_t i, const Pack<float, N>& values, const Pack<W, N>& factors) {
    Pack<A, N> result;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      result.item[j] = rounded<A>(values.item[j] * scale * number(factors.item[j]));
    }
    store_pack(out + i, result);
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * stride < a.size) write(first + k * stride, held[k], weights[k]);
  }
  for (std::int64_t i = rest; i < a.size; i += stride) {
    write(i, load_pack<N>(x + i), load_pack<N>(weight + i));
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
