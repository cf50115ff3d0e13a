#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/joined.h"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/read_ahead.cuh"

namespace higgs_rt {

namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;
constexpr int kEach = 8;  // numbers of one memory access

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__device__ void ask_ahead(const ReadAhead& ahead) {
  constexpr unsigned kWarps = kThreads / 32;
  read_ahead(ahead, blockIdx.x * kWarps + threadIdx.x / 32, gridDim.x * kWarps);
}

__global__ void joined_swiglu_kernel(const bf16* joined, bf16* out, std::int64_t rows, int width,
                                     const __grid_constant__ ReadAhead ahead) {
  grid_launch_next();
  ask_ahead(ahead);
  grid_wait();
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (i >= rows * width) return;
  const std::int64_t row = i / width, column = i % width;
  const bf16* from = joined + row * 2 * width + column;
  const auto gate = load_pack<kEach>(from), up = load_pack<kEach>(from + width);
  Pack<bf16, kEach> result;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const float g = number(gate.item[j]);
    result.item[j] = rounded<bf16>(g / (1.0f + expf(-g)) * number(up.item[j]));
  }
  store_pack(out + i, result);
}

// A thread takes numbers i to i + 7 and i + dim / 2 to i + dim / 2 + 7 of one head.
__global__ void joined_qkv_kernel(const bf16* joined, const QkvOutput to, std::int64_t rows,
                                  const __grid_constant__ ReadAhead ahead) {
  grid_launch_next();
  ask_ahead(ahead);
  grid_wait();
  const int half = to.dim / 2, packs = half / kEach, heads = to.heads + 2 * to.kv_heads;
  const std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t row = t / (heads * packs);
  if (row >= rows) return;
  const int head = static_cast<int>(t / packs % heads), i = static_cast<int>(t % packs) * kEach;
  const bf16* from = joined + (row * heads + head) * to.dim + i;
  auto low = load_pack<kEach>(from), high = load_pack<kEach>(from + half);
  const int position = to.position[row];
  const bool is_value = head >= to.heads + to.kv_heads;
  if (!is_value && position >= 0) {
    const float* turns = to.rope + (std::int64_t{position} * half + i) * 2;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const float c = turns[2 * j], s = turns[2 * j + 1];
      const float a = number(low.item[j]), b = number(high.item[j]);
      low.item[j] = rounded<bf16>(a * c - b * s);
      high.item[j] = rounded<bf16>(b * c + a * s);
    }
  }
  bf16* place = to.q + (row * to.heads + head) * to.dim;
  if (head >= to.heads) {
    const std::int64_t slot = to.slot[row];
    if (slot < 0) return;
    const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
    place = (is_value ? to.v_cache : to.k_cache) + (slot * to.kv_heads + kv_head) * to.dim;
  }
  store_pack(place + i, low);
  store_pack(place + i + half, high);
}

}  // namespace

cudaError_t launch_joined_swiglu(const bf16* joined, bf16* out, int rows, int width,
                                 const ReadAhead& ahead, cudaStream_t stream) {
  return launch(joined_swiglu_kernel, blocks_for(std::int64_t{rows} * width / kEach), kThreads, 0,
                stream, joined, out, std::int64_t{rows}, width, ahead);
}

cudaError_t launch_joined_qkv(const bf16* joined, const QkvOutput& out, int rows,
                              const ReadAhead& ahead, cudaStream_t stream) {
  const std::int64_t packs = std::int64_t{out.heads + 2 * out.kv_heads} * (out.dim / 2 / kEach);
  return launch(joined_qkv_kernel, blocks_for(rows * packs), kThreads, 0, stream, joined, out,
                std::int64_t{rows}, ahead);
}

}  // namespace higgs_rt
