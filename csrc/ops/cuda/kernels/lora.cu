#include <algorithm>

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/lora.h"
#include "ops/cuda/kernels/numbers.cuh"

namespace higgs_rt {

namespace {

constexpr int kWarps = 8;      // of a block of the shrink kernel, one for each of as many ranks
constexpr int kOutputs = 128;  // of a block of the expand kernel, a thread each
constexpr int kPack = 8;
constexpr int kTileRows = 8;      // rows that share the reading of a factor when there are many
constexpr int kSingleRows = 256;  // up to so many rows a block has one

// Whether the rows have one adapter, so that they can share the reading of its factors.
__device__ bool one_adapter(const std::int32_t* adapter, int count) {
  for (int j = 1; j < count; ++j) {
    if (adapter[j] != adapter[0]) return false;
  }
  return true;
}

// Sums over the inputs of `count` <= kRows rows from `row` on with one row of a factor, by a warp.
template <class T, int N, int kRows>
__device__ void shrink_rows(const LoraStep& a, int part, std::int64_t rank, std::int64_t row,
                            int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t adapter = a.adapter[row];
  const T* factor = static_cast<const T*>(a.weights[part].a) + (adapter * a.rank + rank) * a.inputs;
  const T* x = static_cast<const T*>(a.x) + row * a.inputs;
  float acc[kRows] = {};
  for (std::int64_t i = lane * N; i < a.inputs; i += 32 * N) {
    const auto weight = load_pack<N>(factor + i);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const auto value = load_pack<N>(x + (j < count ? j : 0) * a.inputs + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        acc[j] = fmaf(number(weight.item[e]), number(value.item[e]), acc[j]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    for (int offset = 16; offset > 0; offset /= 2) {
      acc[j] += __shfl_xor_sync(0xffffffffu, acc[j], offset);
    }
    if (lane == 0 && j < count) {
      a.work[(part * a.rows + row + j) * a.rank + rank] = a.scale[adapter] * acc[j];
    }
  }
}

template <class T, int N, int kRows>
__global__ void __launch_bounds__(32 * kWarps) lora_shrink_kernel(LoraStep a) {
  grid_wait();
  grid_launch_next();
  const int part = static_cast<int>(blockIdx.z);
  const std::int64_t rank = blockIdx.y * kWarps + threadIdx.x / 32;
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows;
  const auto count = static_cast<int>(min(std::int64_t{kRows}, a.rows - row));
  if (one_adapter(a.adapter + row, count)) {
    if (a.adapter[row] >= 0) shrink_rows<T, N, kRows>(a, part, rank, row, count);
    return;
  }
  for (int j = 0; j < count; ++j) {
    if (a.adapter[row + j] >= 0) shrink_rows<T, N, 1>(a, part, rank, row + j, 1);
  }
}

// One output of `count` <= kRows rows from `row` on.
template <class T, class O, int kRows>
__device__ void expand_rows(const LoraStep& a, int part, std::int64_t output, std::int64_t row,
                            int count) {
  const LoraWeight& weight = a.weights[part];
  const std::int64_t adapter = a.adapter[row];
  const T* factor = static_cast<const T*>(weight.b) + (adapter * weight.outputs + output) * a.rank;
  const float* work = a.work + (part * a.rows + row) * a.rank;
  float acc[kRows] = {};
  for (std::int64_t k = 0; k < a.rank; k += kPack) {
    const auto b = load_pack<kPack>(factor + k);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const auto inner = load_pack<kPack>(work + (j < count ? j : 0) * a.rank + k);
#pragma unroll
      for (int e = 0; e < kPack; ++e) acc[j] = fmaf(number(b.item[e]), inner.item[e], acc[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    if (j >= count) continue;
    O* place = static_cast<O*>(weight.out) + (row + j) * weight.outputs + output;
    *place = rounded<O>(number(*place) + acc[j]);
  }
}

template <class T, class O, int kRows>
__global__ void __launch_bounds__(kOutputs) lora_expand_kernel(LoraStep a) {
  grid_wait();
  grid_launch_next();
  const int part = static_cast<int>(blockIdx.z);
  const std::int64_t output = std::int64_t{blockIdx.x} * kOutputs + threadIdx.x;
  const std::int64_t row = std::int64_t{blockIdx.y} * kRows;
  if (output >= a.weights[part].outputs) return;
  const auto count = static_cast<int>(min(std::int64_t{kRows}, a.rows - row));
  if (one_adapter(a.adapter + row, count)) {
    if (a.adapter[row] >= 0) expand_rows<T, O, kRows>(a, part, output, row, count);
    return;
  }
  for (int j = 0; j < count; ++j) {
    if (a.adapter[row + j] >= 0) expand_rows<T, O, 1>(a, part, output, row + j, 1);
  }
}

unsigned tiles(std::int64_t count, std::int64_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

template <int kRows>
cudaError_t launch_shrink(const LoraStep& a, cudaStream_t stream) {
  const dim3 grid(tiles(a.rows, kRows), tiles(a.rank, kWarps), static_cast<unsigned>(a.count));
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    return launch(a.inputs % kPack == 0 ? lora_shrink_kernel<T, kPack, kRows>
                                        : lora_shrink_kernel<T, 1, kRows>,
                  grid, 32 * kWarps, 0, stream, a);
  });
}

template <int kRows>
cudaError_t launch_expand(const LoraStep& a, cudaStream_t stream) {
  std::int64_t outputs = 0;
  for (int i = 0; i < a.count; ++i) outputs = std::max(outputs, a.weights[i].outputs);
  const dim3 grid(tiles(outputs, kOutputs), tiles(a.rows, kRows), static_cast<unsigned>(a.count));
  return with_type(a.dtype, [&](auto type) {
    return with_type(a.out_dtype, [&](auto out) {
      return launch(lora_expand_kernel<decltype(type), decltype(out), kRows>, grid, kOutputs, 0,
                    stream, a);
    });
  });
}

}  // namespace

cudaError_t launch_lora_shrink(const LoraStep& a, cudaStream_t stream) {
  return a.rows <= kSingleRows ? launch_shrink<1>(a, stream) : launch_shrink<kTileRows>(a, stream);
}

cudaError_t launch_lora_expand(const LoraStep& a, cudaStream_t stream) {
  return a.rows <= kSingleRows ? launch_expand<1>(a, stream) : launch_expand<kTileRows>(a, stream);
}

}  // namespace higgs_rt
