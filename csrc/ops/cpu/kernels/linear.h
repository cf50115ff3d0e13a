// out = x weight^T by dot products over the weights as they lie in memory.
//
// Every (row, output) pair has its own vector accumulator that walks the inputs in ascending order
// and one fixed tree that sums its lanes, so the bits do not depend on the tile shape.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/kernels/simd.h"

namespace higgs_rt::HIGGS_ISA {

#if defined(__AVX512F__)
constexpr int kMaxTileRows = 6;
#elif defined(__AVX2__)
constexpr int kMaxTileRows = 3;
#else
constexpr int kMaxTileRows = 2;
#endif

// acc[w][r] = sum over i of weight[w, i] x[r, i], lane by lane. Row strides in elements. `Fetch`:
// the weights come from main memory, so the next tile's are asked for (a prefetch beyond the end of
// the matrix does nothing).
template <int NW, int NR, bool Fetch, class W>
HIGGS_INLINE void dot_tile(const float* x, std::int64_t x_stride, const W* weight,
                           std::int64_t w_stride, std::int64_t inputs, V (&acc)[NW][NR]) {
  HIGGS_UNROLL
  for (int w = 0; w < NW; ++w) {
    HIGGS_UNROLL
    for (int r = 0; r < NR; ++r) acc[w][r] = V{};
  }
  std::int64_t i = 0;
  for (; i + kWidth <= inputs; i += kWidth) {
    V wv[NW];
    HIGGS_UNROLL
    for (int w = 0; w < NW; ++w) {
      wv[w] = load(weight + w * w_stride + i);
      if constexpr (Fetch) prefetch(weight + (NW + w) * w_stride + i);
    }
    HIGGS_UNROLL
    for (int r = 0; r < NR; ++r) {
      const V xv = load(x + r * x_stride + i);
      HIGGS_UNROLL
      for (int w = 0; w < NW; ++w) acc[w][r] = fma(wv[w], xv, acc[w][r]);
    }
  }
  if (i == inputs) return;
  HIGGS_UNROLL
  for (int r = 0; r < NR; ++r) {
    const V xv = load_part(x + r * x_stride + i, inputs - i);
    HIGGS_UNROLL
    for (int w = 0; w < NW; ++w) {
      acc[w][r] = fma(load_part(weight + w * w_stride + i, inputs - i), xv, acc[w][r]);
    }
  }
}

// Tile of NW outputs (a multiple of 4, or 1) x NR rows, out[r, 0..NW).
template <int NW, int NR, bool Fetch, class W>
inline void linear_tile(const LinearArgs& a, const W* weight, std::int64_t row, std::int64_t o) {
  V acc[NW][NR];
  dot_tile<NW, NR, Fetch>(a.x + row * a.inputs, a.inputs, weight + o * a.inputs, a.inputs, a.inputs,
                          acc);
  HIGGS_UNROLL
  for (int r = 0; r < NR; ++r) {
    float* out = a.out + (row + r) * a.outputs + o;
    if constexpr (NW == 1) {
      const float value = sum(acc[0][r]);
      out[0] = a.accumulate ? out[0] + value : value;
    } else {
      HIGGS_UNROLL
      for (int w = 0; w < NW; w += 4) {
        V4 value = sum4(acc[w][r], acc[w + 1][r], acc[w + 2][r], acc[w + 3][r]);
        V4 before;
        std::memcpy(&before, out + w, sizeof(before));
        if (a.accumulate) value = before + value;
        std::memcpy(out + w, &value, sizeof(value));
      }
    }
  }
}

template <int NR, bool Fetch, class W>
inline void linear_rows(const LinearArgs& a, const W* weight, std::int64_t row, std::int64_t begin,
                        std::int64_t end) {
  std::int64_t o = begin;
  if constexpr (NR == 1) {
    for (; o + 8 <= end; o += 8) linear_tile<8, NR, Fetch>(a, weight, row, o);
  }
  for (; o + 4 <= end; o += 4) linear_tile<4, NR, Fetch>(a, weight, row, o);
  for (; o < end; ++o) linear_tile<1, NR, Fetch>(a, weight, row, o);
}

template <bool Fetch, class W>
inline void linear_height(const LinearArgs& a, const W* weight, std::int64_t height,
                          std::int64_t row, std::int64_t begin, std::int64_t end) {
  switch (height) {
    case 1:
      return linear_rows<1, Fetch>(a, weight, row, begin, end);
    case 2:
      return linear_rows<2, Fetch>(a, weight, row, begin, end);
#if defined(__AVX2__)
    case 3:
      return linear_rows<3, Fetch>(a, weight, row, begin, end);
#endif
#if defined(__AVX512F__)
    case 4:
      return linear_rows<4, Fetch>(a, weight, row, begin, end);
    case 5:
      return linear_rows<5, Fetch>(a, weight, row, begin, end);
    case 6:
      return linear_rows<6, Fetch>(a, weight, row, begin, end);
#endif
  }
}

// Outputs [begin, end) of all rows. Blocks of outputs whose weights fit the second-level cache meet
// all rows, in tiles of nearly equal height, before the next block is read.
template <class W>
inline void linear(const LinearArgs& a, std::int64_t begin, std::int64_t end) {
  const W* weight = static_cast<const W*>(a.weight);
  constexpr std::int64_t kBlockBytes = 256 << 10;
  std::int64_t block = kBlockBytes / (a.inputs * static_cast<std::int64_t>(sizeof(W)) + 1) / 8 * 8;
  if (block < 8) block = 8;
  if (a.rows <= kMaxTileRows) block = end - begin;
  const std::int64_t tiles = (a.rows + kMaxTileRows - 1) / kMaxTileRows;
  for (std::int64_t o = begin; o < end; o += block) {
    const std::int64_t stop = o + block < end ? o + block : end;
    for (std::int64_t t = 0, row = 0; t < tiles; ++t) {
      const std::int64_t height = (a.rows - row) / (tiles - t);
      if (t == 0) {
        linear_height<true>(a, weight, height, row, o, stop);
      } else {
        linear_height<false>(a, weight, height, row, o, stop);
      }
      row += height;
    }
  }
}

}  // namespace higgs_rt::HIGGS_ISA
