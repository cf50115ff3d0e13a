// Row-wise kernels: norm, activations, sums.
#pragma once

#include "ops/cpu/kernels/simd.h"
#include "ops/cpu/vector_math.h"

namespace higgs_rt::HIGGS_ISA {

// body(offset, n) for every vector of [0, size); n < kWidth only for the last.
template <class Body>
HIGGS_INLINE void each_vector(std::int64_t size, Body body) {
  std::int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) body(i, std::int64_t{kWidth});
  if (i < size) body(i, size - i);
}

template <class T>
HIGGS_INLINE V load_n(const T* p, std::int64_t n) {
  return n == kWidth ? load(p) : load_part(p, n);
}
HIGGS_INLINE void store_n(float* p, V v, std::int64_t n) {
  if (n == kWidth) {
    store(p, v);
  } else {
    store_part(p, v, n);
  }
}

// In fp64, because an error of the scale is one of the whole row; beside the products it costs
// nothing.
template <class W>
inline void rms_norm(const float* x, const W* weight, float eps, float* out, std::int64_t size) {
  VD squares{};
  each_vector(size, [&](std::int64_t i, std::int64_t n) {
    const VD v = __builtin_convertvector(load_n(x + i, n), VD);
    squares += v * v;
  });
  double total = 0.0;
  for (int l = 0; l < kWidth; ++l) total += squares[l];
  const double mean = total / static_cast<double>(size);
  const double scale = 1.0 / __builtin_sqrt(mean + static_cast<double>(eps));
  each_vector(size, [&](std::int64_t i, std::int64_t n) {
    const VD v = __builtin_convertvector(load_n(x + i, n), VD);
    const VD w = __builtin_convertvector(load_n(weight + i, n), VD);
    store_n(out + i, __builtin_convertvector(v * scale * w, V), n);
  });
}

inline void swiglu(const float* gate, const float* up, float* out, std::int64_t size) {
  each_vector(size, [&](std::int64_t i, std::int64_t n) {
    const V g = load_n(gate + i, n);
    store_n(out + i, g / (exp(-g) + 1.0f) * load_n(up + i, n), n);
  });
}

inline void snake(const float* x, float alpha, float* out, std::int64_t size) {
  const float inverse = 1.0f / (alpha + 1e-9f);
  std::int64_t done = 0;
  // Several vectors to one test of their lanes, while angles are as small as they always are.
  constexpr int kTogether = 4;
  for (; done + kTogether * kWidth <= size; done += kTogether * kWidth) {
    V v[kTogether], angle[kTogether];
    Lanes small{};
    small = ~small;
    HIGGS_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      v[i] = load(x + done + i * kWidth);
      angle[i] = v[i] * alpha;
      small = small & within(angle[i], kSinLimit);
    }
    if (__builtin_expect(!all_lanes(small), 0)) break;
    HIGGS_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      store(out + done + i * kWidth, fma(sin_squared_small(angle[i]), set1(inverse), v[i]));
    }
  }
  each_vector(size - done, [&](std::int64_t i, std::int64_t n) {
    const V v = load_n(x + done + i, n);
    store_n(out + done + i, fma(sin_squared(v * alpha), set1(inverse), v), n);
  });
}

template <class T>
inline void add(const T* x, bool first, float* out, std::int64_t size) {
  each_vector(size, [&](std::int64_t i, std::int64_t n) {
    const V v = load_n(x + i, n);
    store_n(out + i, first ? v : load_n(out + i, n) + v, n);
  });
}

}  // namespace higgs_rt::HIGGS_ISA
