// Rotary embedding, KV cache writes, SwiGLU and row gathers.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

namespace {

constexpr unsigned kThreads = 128;

unsigned blocks_for(std::int64_t items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}

__device__ std::int64_t thread_index() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// One thread a pair.
template <class T>
__global__ void rope_kernel(Rope a) {
  grid_wait();
  grid_launch_next();
  const std::int64_t half = a.dim / 2, at = thread_index();
  if (at >= a.rows * a.heads * half) return;
  const std::int64_t head = at / half, i = at % half;
  const std::int64_t position = a.positions[head / a.heads];
  if (position < 0) return;
  const float* angle = a.table + (position * half + i) * 2;
  T* low = static_cast<T*>(a.x) + head * a.dim + i;
  T* high = low + half;
  const float x = number(*low), y = number(*high);
  *low = rounded<T>(x * angle[0] - y * angle[1]);
  *high = rounded<T>(y * angle[0] + x * angle[1]);
}

// One thread a unit of both a key and a value.
template <class Unit>
__global__ void store_kv_kernel(StoreKv a, std::int64_t units) {
  grid_wait();
  grid_launch_next();
  const std::int64_t at = thread_index();
  if (at >= a.rows * units) return;
  const std::int64_t slot = a.slots[at / units];
  if (slot < 0) return;
  const std::int64_t to = slot * units + at % units;
  static_cast<Unit*>(a.k_cache)[to] = static_cast<const Unit*>(a.k)[at];
  static_cast<Unit*>(a.v_cache)[to] = static_cast<const Unit*>(a.v)[at];
}

template <class T, int N>
__global__ void swiglu_kernel(Swiglu a) {
  grid_wait();
  grid_launch_next();
  const std::int64_t at = thread_index() * N;
  if (at >= a.size) return;
  const auto gate = load_pack<N>(static_cast<const T*>(a.gate) + at);
  const auto up = load_pack<N>(static_cast<const T*>(a.up) + at);
  Pack<T, N> out;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float g = number(gate.item[j]);
    out.item[j] = rounded<T>(g / (1.0f + expf(-g)) * number(up.item[j]));
  }
  store_pack(static_cast<T*>(a.out) + at, out);
}

template <int N>
__global__ void gather_rows_kernel(GatherRows a) {
  grid_wait();
  grid_launch_next();
  const std::int64_t at = thread_index() * N;
  if (at >= a.count * a.size) return;
  const std::int64_t from = a.rows[at / a.size] * a.size + at % a.size;
  store_pack(a.out + at, load_pack<N>(a.x + from));
}

template <class Unit>
cudaError_t launch_store_kv_by(const StoreKv& a, cudaStream_t stream) {
  const auto units = a.row_bytes / static_cast<std::int64_t>(sizeof(Unit));
  return launch(store_kv_kernel<Unit>, blocks_for(a.rows * units), kThreads, 0, stream, a, units);
}

}  // namespace

cudaError_t launch_rope(const Rope& a, cudaStream_t stream) {
  return with_type(a.dtype, [&](auto type) {
    return launch(rope_kernel<decltype(type)>, blocks_for(a.rows * a.heads * (a.dim / 2)), kThreads,
                  0, stream, a);
  });
}

cudaError_t launch_store_kv(const StoreKv& a, cudaStream_t stream) {
  return a.row_bytes % 16 == 0 ? launch_store_kv_by<uint4>(a, stream)
                               : launch_store_kv_by<unsigned short>(a, stream);
}

cudaError_t launch_swiglu(const Swiglu& a, cudaStream_t stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const bool fours = by_fours(a.size);
    return launch(fours ? swiglu_kernel<T, 4> : swiglu_kernel<T, 1>,
                  blocks_for(fours ? a.size / 4 : a.size), kThreads, 0, stream, a);
  });
}

cudaError_t launch_gather_rows(const GatherRows& a, cudaStream_t stream) {
  const bool fours = by_fours(a.size);
  return launch(fours ? gather_rows_kernel<4> : gather_rows_kernel<1>,
                blocks_for(a.count * a.size / (fours ? 4 : 1)), kThreads, 0, stream, a);
}

}  // namespace higgs_rt
