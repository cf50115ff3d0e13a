// Where the outputs of a wide product come from and what becomes of the sums. A tile of kOutputs
// outputs has two halves that belong together in pairs: output j of the lower half with output j of
// the upper one.
#pragma once

#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/wide_shares.cuh"

namespace higgs_rt::wide {

using bf16 = __nv_bfloat16;
using Four = Pack<float, 4>;

// The weight's rows at which the halves of a tile begin.
struct Halves {
  int low, high;
};
__device__ inline Halves halves_of(const WideOutput& to, int outputs, int tile) {
  constexpr int half = kOutputs / 2;
  const int begin = tile * half;
  if (to.end == WideEnd::kSwiglu) return {begin, outputs / 2 + begin};
  if (to.end != WideEnd::kQkv) return {tile * kOutputs, tile * kOutputs + half};
  const int pairs = to.qkv.dim / 2, head = begin / pairs, first = head * pairs + begin;
  return {first, first + pairs};  // head * dim + begin % pairs
}

__device__ inline void store_bf16(bf16* place, const Four& values) {
  Pack<bf16, 4> narrow;
#pragma unroll
  for (int j = 0; j < 4; ++j) narrow.item[j] = rounded<bf16>(values.item[j]);
  store_pack(place, narrow);
}

// What the end of a product reads besides the sums, asked for before they are joined. kAdd: what
// the sums of both halves are added to, and weights of the norm behind. kQkv: cos and sin of four
// pairs.
struct Ahead {
  Four first, second;
  Pack<bf16, 4> low_norm, high_norm;
};

// What the sums of a row are multiplied by.
__device__ inline float factor_of(const WideFactors& from, int row) {
  float sum = 0.0f;
#pragma unroll 8
  for (int t = 0; t < from.tiles; ++t) sum += from.squares[t * kWideMaxRows + row];
  return 1.0f / sqrtf(sum / static_cast<float>(from.size) + from.eps);
}

__device__ inline Four load_inside(const float* row, int o, int outputs) {
  return o < outputs ? load_pack<4>(row + o) : Four{};
}
// Of outputs j to j + 3 of both halves of a row's tile.
__device__ inline Ahead read_ahead(const WideOutput& to, int outputs, const Halves& halves, int j,
                                   int row) {
  if (to.end == WideEnd::kAdd) {
    const float* out = static_cast<const float*>(to.out) + std::int64_t{row} * outputs;
    Ahead ahead{};
    ahead.first = load_inside(out, halves.low + j, outputs);
    ahead.second = load_inside(out, halves.high + j, outputs);
    if (to.next.norm == nullptr) return ahead;
    if (halves.low + j < outputs) ahead.low_norm = load_pack<4>(to.next.norm + halves.low + j);
    if (halves.high + j < outputs) ahead.high_norm = load_pack<4>(to.next.norm + halves.high + j);
    return ahead;
  }
  if (to.end != WideEnd::kQkv) return {};
  const int half = to.qkv.dim / 2, head = halves.low / to.qkv.dim;
  const int position = to.qkv.position[row];
  if (head >= to.qkv.heads + to.qkv.kv_heads || position < 0) {
    return {{1.0f, 0.0f, 1.0f, 0.0f}, {1.0f, 0.0f, 1.0f, 0.0f}, {}, {}};
  }
  const int i = halves.low + j - head * to.qkv.dim;
  const float* turns = to.qkv.rope + (std::int64_t{position} * half + i) * 2;
  return {load_pack<4>(turns), load_pack<4>(turns + 4), {}, {}};
}

// Outputs o to o + 3 of a row as they are.
__device__ inline void write_plain(const WideOutput& to, int outputs, int row, int o,
                                   const Four& values) {
  if (o >= outputs) return;
  const std::int64_t place = std::int64_t{row} * outputs + o;
  if (to.end == WideEnd::kStoreBf16) return store_bf16(static_cast<bf16*>(to.out) + place, values);
  store_pack(static_cast<float*>(to.out) + place, values);
}

// Outputs o to o + 3 of a row, added to what was there; gives the sum of their squares.
__device__ inline float write_sum(const WideOutput& to, int outputs, int row, int o, Four values,
                                  const Four& before, const Pack<bf16, 4>& norm) {
  if (o >= outputs) return 0.0f;
  const std::int64_t place = std::int64_t{row} * outputs + o;
#pragma unroll
  for (int j = 0; j < 4; ++j) values.item[j] += before.item[j];
  store_pack(static_cast<float*>(to.out) + place, values);
  if (to.next.norm == nullptr) return 0.0f;
  float squares = 0.0f;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    squares = fmaf(values.item[j], values.item[j], squares);
    values.item[j] *= number(norm.item[j]);
  }
  store_bf16(to.next.rows + place, values);
  return squares;
}

__device__ inline void write_swiglu(const WideOutput& to, int width, int row, int f,
                                    const Four& gate, const Four& up) {
  if (f >= width) return;
  Four result;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    // Both approximations are far closer than the rounding that follows.
    result.item[j] = __fdividef(gate.item[j], 1.0f + __expf(-gate.item[j])) * up.item[j];
  }
  store_bf16(static_cast<bf16*>(to.out) + std::int64_t{row} * width + f, result);
}

// Numbers i to i + 3 and dim / 2 further of a head, from weight row `first` on.
__device__ inline void write_qkv(const QkvOutput& to, int row, int first, const Four& low,
                                 const Four& high, const Ahead& turns) {
  const int half = to.dim / 2, head = first / to.dim, i = first - head * to.dim;
  Four a, b;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const Four& turn = j < 2 ? turns.first : turns.second;
    const float c = turn.item[j % 2 * 2], s = turn.item[j % 2 * 2 + 1];
    a.item[j] = low.item[j] * c - high.item[j] * s;
    b.item[j] = high.item[j] * c + low.item[j] * s;
  }
  bf16* place = to.q + (std::int64_t{row} * to.heads + head) * to.dim;
  if (head >= to.heads) {
    const bool is_value = head >= to.heads + to.kv_heads;
    const std::int64_t slot = to.slot[row];
    if (slot < 0) return;
    const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
    place = (is_value ? to.v_cache : to.k_cache) + (slot * to.kv_heads + kv_head) * to.dim;
  }
  store_bf16(place + i, a);
  store_bf16(place + i + half, b);
}

// Outputs j to j + 3 of both halves of a row's tile; gives the sum of squares for kAdd.
__device__ inline float write_four(const WideOutput& to, int outputs, const Halves& halves, int j,
                                   int row, const Four& low, const Four& high, const Ahead& ahead) {
  if (to.end == WideEnd::kAdd) {
    const float squares =
        write_sum(to, outputs, row, halves.low + j, low, ahead.first, ahead.low_norm);
    return squares +
           write_sum(to, outputs, row, halves.high + j, high, ahead.second, ahead.high_norm);
  }
  if (to.end == WideEnd::kSwiglu) {
    write_swiglu(to, outputs / 2, row, halves.low + j, low, high);
  } else if (to.end == WideEnd::kQkv) {
    if (halves.low < outputs) write_qkv(to.qkv, row, halves.low + j, low, high, ahead);
  } else {
    write_plain(to, outputs, row, halves.low + j, low);
    write_plain(to, outputs, row, halves.high + j, high);
  }
  return 0.0f;
}

}  // namespace higgs_rt::wide
