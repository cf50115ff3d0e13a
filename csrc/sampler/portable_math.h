// Arithmetic with the same bits on the host and on the GPU: single roundings in a written order, no
// contraction, no math library. Host code is compiled with -ffp-contract=off (HiggsRtOptions).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace higgs_rt::portable {

#if defined(__CUDA_ARCH__)
#define HIGGS_ROUNDED(host, device) return device
#else
#define HIGGS_ROUNDED(host, device) return host
#endif

HIGGS_HOST_DEVICE inline float add(float a, float b) { HIGGS_ROUNDED(a + b, __fadd_rn(a, b)); }
HIGGS_HOST_DEVICE inline float mul(float a, float b) { HIGGS_ROUNDED(a * b, __fmul_rn(a, b)); }
HIGGS_HOST_DEVICE inline float div(float a, float b) { HIGGS_ROUNDED(a / b, __fdiv_rn(a, b)); }
HIGGS_HOST_DEVICE inline double mul(double a, double b) { HIGGS_ROUNDED(a * b, __dmul_rn(a, b)); }

#undef HIGGS_ROUNDED

HIGGS_HOST_DEVICE inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
HIGGS_HOST_DEVICE inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Signed integers in the order of the floats; -0 equals +0. A NaN has a key too: see is_nan.
HIGGS_HOST_DEVICE inline std::int32_t key_of(float value) {
  const auto bits = static_cast<std::int32_t>(bits_of(add(value, 0.0f)));
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
HIGGS_HOST_DEVICE inline float value_of(std::int32_t key) {
  return float_of(static_cast<std::uint32_t>(key ^ ((key >> 31) & 0x7fffffff)));
}
inline constexpr std::int32_t kKeyOfMinusInfinity = -0x7f800001;
inline constexpr std::int32_t kLowestKey = -0x7fffffff - 1;

// 1 for a NaN, otherwise 0.
HIGGS_HOST_DEVICE inline std::int32_t is_nan(float value) {
  return (static_cast<std::int32_t>(bits_of(value)) & 0x7fffffff) > 0x7f800000 ? 1 : 0;
}

// Probabilities are integers: kOne stands for the weight of the largest logit. Integer sums do not
// depend on their order, so any number of lanes gives the same total; 4,096 weights times a 24-bit
// random number still fit 64 bits.
inline constexpr int kOneBits = 28;
inline constexpr std::uint32_t kOne = 1u << kOneBits;

// exp(y) * kOne, rounded to an integer, for y in [-inf, 0]; relative error below 3e-7 before
// rounding. y = n ln 2 + r with |r| <= ln(2)/2, a polynomial for exp(r), and n put in the exponent.
HIGGS_HOST_DEVICE inline std::uint32_t exp_weight(float y) {
  const float clamped = y > -30.0f ? y : -30.0f;  // exp(-30) * kOne rounds to 0
  constexpr float kRound = 12582912.0f;           // 1.5 * 2^23: adding it rounds to integers
  const float shifted = add(mul(clamped, 1.44269504f), kRound);
  const float n = add(shifted, -kRound);
  float r = add(clamped, mul(n, -0.693359375f));  // ln 2 in two parts, the first exact
  r = add(r, mul(n, 2.12194440e-4f));
  float p = 1.0f / 5040.0f;
  p = add(mul(p, r), 1.0f / 720.0f);
  p = add(mul(p, r), 1.0f / 120.0f);
  p = add(mul(p, r), 1.0f / 24.0f);
  p = add(mul(p, r), 1.0f / 6.0f);
  p = add(mul(p, r), 0.5f);
  p = add(mul(p, r), 1.0f);
  p = add(mul(p, r), 1.0f);
  // The low bits of `shifted` hold n in two's complement (its own bits are 0x4b400000).
  const std::uint32_t exponent = bits_of(shifted) - 0x4b400000u + 127u + kOneBits;
  const float scaled = mul(p, float_of(exponent << 23));
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(add(scaled, 0.5f)));
}

}  // namespace higgs_rt::portable
