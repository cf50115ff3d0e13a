#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/plain_linear.h"

namespace higgs_rt {

namespace {

constexpr int kSide = 16;  // threads of a block each way
constexpr int kRows = 32, kOutputs = 64, kInputs = 32;
constexpr int kThreads = kSide * kSide;
constexpr int kColumn = kInputs + 1;  // keeps the threads of a column in different banks

// A tile [kHeight, kInputs] of a matrix [height, inputs], first into registers, then to shared
// memory; zeros outside of the matrix.
template <class T, int kHeight>
struct TileLoad {
  static constexpr int kEach = kHeight * kInputs / kThreads;
  float value[kEach];

  __device__ void load(const T* matrix, std::int64_t top, std::int64_t height, std::int64_t left,
                       std::int64_t inputs) {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int e = static_cast<int>(threadIdx.x) + kThreads * j;
      const std::int64_t row = top + e / kInputs, column = left + e % kInputs;
      value[j] = row < height && column < inputs ? number(matrix[row * inputs + column]) : 0.0f;
    }
  }
  __device__ void store(float* tile) const {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int e = static_cast<int>(threadIdx.x) + kThreads * j;
      tile[e / kInputs * kColumn + e % kInputs] = value[j];
    }
  }
};

template <class X, class W, class O>
__global__ void __launch_bounds__(kThreads) plain_linear_kernel(PlainLinear a) {
  __shared__ float x_tile[kRows * kColumn], w_tile[kOutputs * kColumn];
  const std::int64_t row0 = std::int64_t{blockIdx.y} * kRows;
  const std::int64_t output0 = std::int64_t{blockIdx.x} * kOutputs;
  const int tx = static_cast<int>(threadIdx.x) % kSide, ty = static_cast<int>(threadIdx.x) / kSide;
  TileLoad<X, kRows> x;
  TileLoad<W, kOutputs> w;
  w.load(static_cast<const W*>(a.weight), output0, a.outputs, 0, a.inputs);
  grid_launch_next();
  grid_wait();
  x.load(static_cast<const X*>(a.x), row0, a.rows, 0, a.inputs);
  float acc[kRows / kSide][kOutputs / kSide] = {};
  for (std::int64_t k = 0; k < a.inputs; k += kInputs) {
    x.store(x_tile);
    w.store(w_tile);
    __syncthreads();
    x.load(static_cast<const X*>(a.x), row0, a.rows, k + kInputs, a.inputs);
    w.load(static_cast<const W*>(a.weight), output0, a.outputs, k + kInputs, a.inputs);
#pragma unroll 8
    for (int i = 0; i < kInputs; ++i) {
#pragma unroll
      for (int r = 0; r < kRows / kSide; ++r) {
        const float factor = x_tile[(ty + kSide * r) * kColumn + i];
#pragma unroll
        for (int o = 0; o < kOutputs / kSide; ++o) {
          acc[r][o] = fmaf(factor, w_tile[(tx + kSide * o) * kColumn + i], acc[r][o]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kRows / kSide; ++r) {
#pragma unroll
    for (int o = 0; o < kOutputs / kSide; ++o) {
      const std::int64_t row = row0 + ty + kSide * r, output = output0 + tx + kSide * o;
      if (row >= a.rows || output >= a.outputs) continue;
      O* place = static_cast<O*>(a.out) + row * a.outputs + output;
      *place = rounded<O>(a.accumulate ? number(*place) + acc[r][o] : acc[r][o]);
    }
  }
}

}  // namespace

cudaError_t launch_plain_linear(const PlainLinear& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((a.outputs + kOutputs - 1) / kOutputs),
                  static_cast<unsigned>((a.rows + kRows - 1) / kRows));
  return with_type(a.x_dtype, [&](auto x) {
    return with_type(a.weight_dtype, [&](auto w) {
      return with_type(a.out_dtype, [&](auto out) {
        return launch(plain_linear_kernel<decltype(x), decltype(w), decltype(out)>, grid, kThreads,
                      0, stream, a);
      });
    });
  });
}

}  // namespace higgs_rt
