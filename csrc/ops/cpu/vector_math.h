// exp and sin^2 on vectors. Included only by isa_*.cpp (see kernels/simd.h).
#pragma once

#include "ops/cpu/kernels/simd.h"

namespace higgs_rt::HIGGS_ISA {

// Nearest integer, for |x| < 2^22: the added constant pushes the fraction out of the mantissa.
HIGGS_INLINE V round_nearest(V x) {
  const V magic = set1(12582912.0f);  // 1.5 * 2^23
  return (x + magic) - magic;
}

// 2^n for integral n in [-126, 127].
HIGGS_INLINE V exp2_of_integer(V n) { return (V)((__builtin_convertvector(n, VI) + 127) << 23); }

// e^x within 2 ulp; 0 below -87.3, infinity above 88.73, NaN for NaN.
HIGGS_INLINE V exp(V x) {
  const V low = set1(-87.33654f);
  const V high = set1(88.73f);
  V y = x < low ? low : x;
  y = y > high ? high : y;
  const V n = round_nearest(y * 1.44269504f);
  V r = fma(n, set1(-0.693359375f), y);  // ln 2 in two parts; n times the first is exact
  r = fma(n, set1(2.12194440e-4f), r);
  V p = set1(1.9875691500e-4f);  // e^r = 1 + r + r^2 p(r) on |r| <= ln 2 / 2
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  const V value = fma(p, r * r, r) + 1.0f;
  const V half = round_nearest(n * 0.5f);  // two factors, because 2^128 has no representation
  const V result = value * exp2_of_integer(half) * exp2_of_integer(n - half);
  return x < low ? V{} : result;
}

constexpr float kSinLimit = 1.0e4f;

// sin(x)^2, absolute error below 1e-6 for |x| <= kSinLimit. The square has period pi, so the sign
// of the reduced sine does not matter.
HIGGS_INLINE V sin_squared_small(V x) {
  const V n = round_nearest(x * 0.318309886f);
  V r = fma(n, set1(-3.140625f), x);  // pi in three parts; n times each of the first two is exact
  r = fma(n, set1(-9.67502593994140625e-4f), r);
  r = fma(n, set1(-1.509957990978376432e-7f), r);
  const V q = r * r;
  V p = set1(-2.5052108e-8f);  // Taylor series to r^11: remainder below 6e-8 on |r| <= pi / 2
  p = fma(p, q, set1(2.7557319e-6f));
  p = fma(p, q, set1(-1.9841270e-4f));
  p = fma(p, q, set1(8.3333333e-3f));
  p = fma(p, q, set1(-1.6666667e-1f));
  const V s = fma(p * q, r, r);
  return s * s;
}

// Replaces the lanes of sin(x)^2 beyond kSinLimit (and NaN) by those of the C library's sine.
[[gnu::noinline, gnu::cold]] inline void correct_sin_squared(const float* x, float* result) {
  for (int i = 0; i < kWidth; ++i) {
    if (x[i] <= kSinLimit && x[i] >= -kSinLimit) continue;
    const float s = __builtin_sinf(x[i]);
    result[i] = s * s;
  }
}

// sin(x)^2 for any x.
HIGGS_INLINE V sin_squared(V x) {
  V result = sin_squared_small(x);
  if (__builtin_expect(all_lanes(within(x, kSinLimit)), 1)) return result;
  float angles[kWidth];
  float squares[kWidth];
  store(angles, x);
  store(squares, result);
  correct_sin_squared(angles, squares);
  return load(squares);
}

}  // namespace higgs_rt::HIGGS_ISA
