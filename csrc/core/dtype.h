// Element types of tensors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace higgs_rt {

enum class DType : std::int32_t { kF32, kBF16, kF16, kI32, kU8 };

std::size_t size_of(DType dtype);
const char* name_of(DType dtype);

// Storage of a bfloat16 number: the upper half of an fp32 number.
struct BF16 {
  std::uint16_t bits = 0;
};

inline float to_float(BF16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Round to nearest even; NaN stays NaN.
inline BF16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace higgs_rt
