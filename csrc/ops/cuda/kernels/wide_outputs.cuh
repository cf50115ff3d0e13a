// Where the outputs of a wide product come from and what becomes of the sums. A tile of kOutputs
// outputs has two halves that belong together in pairs: output j of the lower half with output j of
// the upper one.
#pragma once

#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/wide_shares.cuh"

namespace higgs_rt::wide {

using bf16 = __nv_bfloat16;
using Four = Pack<float, 4>;

// The weight's rows at which the halves of a tile begin; kQkv: and the head that both are of.
struct Halves {
  int low, high, head;
};
template <WideEnd kEnd>
__device__ inline Halves halves_of(const Work& work, int tile) {
  constexpr int kHalf = kOutputs / 2;
  int low = tile * (kEnd == WideEnd::kSwiglu ? kHalf : kOutputs), head = tile;
  if (kEnd == WideEnd::kQkv && work.head_tiles > 1) {
    head = tile / work.head_tiles;
    low = head * work.head_tiles * kOutputs + tile % work.head_tiles * kHalf;
  }
  const bool is_far = kEnd == WideEnd::kSwiglu || kEnd == WideEnd::kQkv;
  return {low, low + (is_far ? work.upper : kHalf), head};
}

__device__ inline void store_bf16(bf16* place, const Four& values) {
  Pack<bf16, 4> narrow;
#pragma unroll
  for (int j = 0; j < 4; ++j) narrow.item[j] = rounded<bf16>(values.item[j]);
  store_pack(place, narrow);
}

// Of a row, for kQkv.
struct RowPlace {
  std::int32_t position, slot;
};
template <WideEnd kEnd>
__device__ inline RowPlace place_of_row(const WideOutput& to, int row) {
  if (kEnd != WideEnd::kQkv) return {};
  return {to.qkv.position[row], to.qkv.slot[row]};
}

// What the end of a product reads besides the sums, asked for before they are joined, and where it
// writes. kAdd: what the sums of both halves are added to, weights of the norm behind, and which
// number of `out` the first is. kQkv: cos and sin of four pairs, and the query, key or value of the
// head, null for none.
struct Ahead {
  Four first, second;
  Pack<bf16, 4> low_norm, high_norm;
  unsigned place;
  bf16* vector;
};

// What the sums of a row are multiplied by.
__device__ inline float factor_of(const WideFactors& from, int row) {
  float sum = 0.0f;
#pragma unroll 8
  for (int t = 0; t < from.tiles; ++t) sum += from.squares[t * kWideMaxRows + row];
  return 1.0f / sqrtf(sum / static_cast<float>(from.size) + from.eps);
}

__device__ inline bf16* vector_of(const QkvOutput& to, int head, int row, std::int32_t slot) {
  if (head < to.heads) return to.q + (row * to.heads + head) * to.dim;
  if (slot < 0) return nullptr;
  const bool is_value = head >= to.heads + to.kv_heads;
  const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
  return (is_value ? to.v_cache : to.k_cache) + std::int64_t{slot} * (to.kv_heads * to.dim) +
         kv_head * to.dim;
}
// Of outputs j to j + 3 of both halves of a row's tile.
template <WideEnd kEnd>
__device__ inline Ahead read_ahead(const WideOutput& to, int outputs, const Halves& halves, int j,
                                   int row, const RowPlace& at) {
  Ahead ahead;
  if (kEnd == WideEnd::kAdd) {
    const int low = halves.low + j, high = halves.high + j;
    ahead.place = static_cast<unsigned>(row * outputs + low);
    const float* out = static_cast<const float*>(to.out);
    // (Where there is nothing, something else is read and not used.)
    ahead.first = load_pack<4>(out + (low < outputs ? ahead.place : 0));
    ahead.second = load_pack<4>(out + (high < outputs ? ahead.place + (high - low) : 0));
    if (to.next.norm != nullptr) {
      ahead.low_norm = load_pack<4>(to.next.norm + (low < outputs ? low : 0));
      ahead.high_norm = load_pack<4>(to.next.norm + (high < outputs ? high : 0));
    }
  }
  if (kEnd == WideEnd::kQkv) {
    const QkvOutput& qkv = to.qkv;
    const int half = qkv.dim / 2, i = halves.low + j - halves.head * qkv.dim;
    ahead.vector = vector_of(qkv, halves.head, row, at.slot);
    if (halves.low >= outputs) ahead.vector = nullptr;
    if (ahead.vector != nullptr) ahead.vector += i;
    ahead.first = ahead.second = {1.0f, 0.0f, 1.0f, 0.0f};
    if (halves.head < qkv.heads + qkv.kv_heads && at.position >= 0) {
      const float* turns = qkv.rope + (std::int64_t{at.position} * half + i) * 2;
      ahead.first = load_pack<4>(turns), ahead.second = load_pack<4>(turns + 4);
    }
  }
  return ahead;
}

// Outputs o to o + 3 of a row as they are.
template <WideEnd kEnd>
__device__ inline void write_plain(const WideOutput& to, int outputs, int row, int o,
                                   const Four& values) {
  if (o >= outputs) return;
  const std::int64_t place = std::int64_t{row} * outputs + o;
  if (kEnd == WideEnd::kStoreBf16) return store_bf16(static_cast<bf16*>(to.out) + place, values);
  store_pack(static_cast<float*>(to.out) + place, values);
}

// Four outputs of a row from a place on, added to what was there; gives the sum of their squares.
__device__ inline float write_sum(const WideOutput& to, unsigned place, Four values,
                                  const Four& before, const Pack<bf16, 4>& norm) {
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

__device__ inline void write_swiglu(bf16* to, const Four& gate, const Four& up) {
  Four result;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    // Both approximations are far closer than the rounding that follows.
    result.item[j] = __fdividef(gate.item[j], 1.0f + __expf(-gate.item[j])) * up.item[j];
  }
  store_bf16(to, result);
}

// Four numbers of a head and those dim / 2 further.
__device__ inline void write_qkv(int half, const Four& low, const Four& high, const Ahead& ahead) {
  if (ahead.vector == nullptr) return;
  Four a, b;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const Four& turn = j < 2 ? ahead.first : ahead.second;
    const float c = turn.item[j % 2 * 2], s = turn.item[j % 2 * 2 + 1];
    a.item[j] = low.item[j] * c - high.item[j] * s;
    b.item[j] = high.item[j] * c + low.item[j] * s;
  }
  store_bf16(ahead.vector, a);
  store_bf16(ahead.vector + half, b);
}

// Outputs j to j + 3 of both halves of a row's tile; gives the sum of squares for kAdd.
template <WideEnd kEnd>
__device__ inline float write_four(const WideOutput& to, int outputs, const Halves& halves, int j,
                                   int row, const Four& low, const Four& high, const Ahead& ahead) {
  if (kEnd == WideEnd::kAdd) {
    float squares = 0.0f;
    if (halves.low + j < outputs) {
      squares = write_sum(to, ahead.place, low, ahead.first, ahead.low_norm);
    }
    if (halves.high + j < outputs) {
      const unsigned place = ahead.place + static_cast<unsigned>(halves.high - halves.low);
      squares += write_sum(to, place, high, ahead.second, ahead.high_norm);
    }
    return squares;
  }
  if (kEnd == WideEnd::kSwiglu) {
    const int width = outputs / 2, f = halves.low + j;
    if (f < width) write_swiglu(static_cast<bf16*>(to.out) + (row * width + f), low, high);
  } else if (kEnd == WideEnd::kQkv) {
    write_qkv(to.qkv.dim / 2, low, high, ahead);
  } else {
    write_plain<kEnd>(to, outputs, row, halves.low + j, low);
    write_plain<kEnd>(to, outputs, row, halves.high + j, high);
  }
  return 0.0f;
}

}  // namespace higgs_rt::wide
