#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/joined.cuh"
#include "ops/cuda/kernels/joined.h"

namespace higgs_rt {

namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;
constexpr int kEach = 8;  // numbers of one memory access

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__global__ void joined_swiglu_kernel(const bf16* joined, bf16* out, std::int64_t rows, int width) {
  grid_launch_next();
  grid_wait();
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (i >= rows * width) return;
  const std::int64_t row = i / width, column = i % width;
  const bf16* from = joined + row * 2 * width + column;
  const auto gate = load_pack<kEach>(from), up = load_pack<kEach>(from + width);
  Pack<bf16, kEach> result;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    result.item[j] = rounded<bf16>(gated(number(gate.item[j]), number(up.item[j])));
  }
  store_pack(out + i, result);
}

// A thread takes numbers i to i + 7 and i + dim / 2 to i + dim / 2 + 7 of one head. Positions,
// slots and the table of angles are there before the step's kernels run (ops.h).
__global__ void joined_qkv_kernel(const bf16* joined, const QkvOutput to, std::int64_t rows) {
  grid_launch_next();
  const int half = to.dim / 2, packs = half / kEach, heads = to.heads + 2 * to.kv_heads;
  const std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t row = t / (heads * packs);
  if (row >= rows) return;
  const int head = static_cast<int>(t / packs % heads), i = static_cast<int>(t % packs) * kEach;
  const int position = to.position[row];
  const std::int64_t slot = head < to.heads ? 0 : to.slot[row];
  const bool is_value = head >= to.heads + to.kv_heads, turns_it = !is_value && position >= 0;
  Pack<float, 4> turns[4] = {};
  if (turns_it) {
    const float* from = to.rope + (std::int64_t{position} * half + i) * 2;
#pragma unroll
    for (int j = 0; j < 4; ++j) turns[j] = load_pack<4>(from + 4 * j);
  }
  grid_wait();
  const bf16* from = joined + (row * heads + head) * to.dim + i;
  auto low = load_pack<kEach>(from), high = load_pack<kEach>(from + half);
  if (turns_it) {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const float c = turns[j / 2].item[j % 2 * 2], s = turns[j / 2].item[j % 2 * 2 + 1];
      const Turned pair = turned(number(low.item[j]), number(high.item[j]), c, s);
      low.item[j] = rounded<bf16>(pair.low), high.item[j] = rounded<bf16>(pair.high);
    }
  }
  bf16* place = to.q + (row * to.heads + head) * to.dim;
  if (head >= to.heads) {
    if (slot < 0) return;
    const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
    place = (is_value ? to.v_cache : to.k_cache) + (slot * to.kv_heads + kv_head) * to.dim;
  }
  store_pack(place + i, low);
  store_pack(place + i + half, high);
}

}  // namespace

cudaError_t launch_joined_swiglu(const bf16* joined, bf16* out, int rows, int width,
                                 cudaStream_t stream) {
  return launch(joined_swiglu_kernel, blocks_for(std::int64_t{rows} * width / kEach), kThreads, 0,
                stream, joined, out, std::int64_t{rows}, width);
}

cudaError_t launch_joined_qkv(const bf16* joined, const QkvOutput& out, int rows,
                              cudaStream_t stream) {
  const std::int64_t packs = std::int64_t{out.heads + 2 * out.kv_heads} * (out.dim / 2 / kEach);
  return launch(joined_qkv_kernel, blocks_for(rows * packs), kThreads, 0, stream, joined, out,
                std::int64_t{rows});
}

}  // namespace higgs_rt
