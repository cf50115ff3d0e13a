// Reading and writing fp32 and bf16 numbers, several at a time.
#pragma once

#include <cuda_bf16.h>

#include "core/dtype.h"

namespace higgs_rt {

// `N` neighbours as one memory access; the address must be a multiple of its size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T item[N];
};

__device__ inline float number(float value) { return value; }
__device__ inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ inline T rounded(float value) {
  return static_cast<T>(value);
}
template <>
__device__ inline __nv_bfloat16 rounded<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

template <int N, class T>
__device__ inline Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, class T>
__device__ inline void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Calls body with a number of the type `dtype`, fp32 or bf16 (the operations have checked it).
template <class Body>
cudaError_t with_type(DType dtype, Body body) {
  return dtype == DType::kF32 ? body(float{}) : body(__nv_bfloat16{});
}

// Whether rows of `size` numbers can be read four at a time.
inline bool by_fours(std::int64_t size) { return size % 4 == 0; }

// The sum over a block, in every thread; `partial` is shared memory of one float a warp.
__device__ inline float block_sum(float value, float* partial) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += partial[warp];
  return sum;
}

}  // namespace higgs_rt
