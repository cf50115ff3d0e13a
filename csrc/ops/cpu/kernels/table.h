// The kernel table of one instruction set. Included once by each isa_*.cpp.
#pragma once

#include "ops/cpu/kernels/attention.h"
#include "ops/cpu/kernels/conv.h"
#include "ops/cpu/kernels/conv_transpose.h"
#include "ops/cpu/kernels/elementwise.h"
#include "ops/cpu/kernels/linear.h"
#include "ops/cpu/kernels/linear_panels.h"

namespace higgs_rt::HIGGS_ISA {

#define HIGGS_STRING2(x) #x
#define HIGGS_STRING(x) HIGGS_STRING2(x)

const Kernels& kernels() {
  static constexpr Kernels table = {
      .isa = HIGGS_STRING(HIGGS_ISA),
      .conv_step = kWidth * kThinVectors,
      .attention_rows = kMaxQueries,
      .linear_f32 = linear<float>,
      .linear_bf16 = linear<std::uint16_t>,
      .linear_panels = linear_panels,
      .conv = conv,
      .conv_transposed = conv_transposed,
      .attention = attention,
      .rms_norm_f32 = rms_norm<float>,
      .rms_norm_bf16 = rms_norm<std::uint16_t>,
      .swiglu = swiglu,
      .snake = snake,
      .add_f32 = add<float>,
      .add_bf16 = add<std::uint16_t>,
  };
  return table;
}

}  // namespace higgs_rt::HIGGS_ISA
