#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::rms_norm(const TensorView& x, const TensorView& weight, float eps,
                      const TensorView& out) {
  expect_rank("rms_norm", "x", x, 2);
  const std::int64_t rows = x.dim(0), size = x.dim(1);
  expect("rms_norm", "x", x, DType::kF32, {rows, size});
  expect_weight("rms_norm", "weight", weight, {size});
  expect("rms_norm", "out", out, DType::kF32, {rows, size});

  const float* in = x.as<float>();
  float* result = out.as<float>();
  parallel(rows, 16 * size, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      if (weight.dtype == DType::kF32) {
        kernels_.rms_norm_f32(in + r * size, weight.as<float>(), eps, result + r * size, size);
      } else {
        kernels_.rms_norm_bf16(in + r * size, bf16_bits(weight), eps, result + r * size, size);
      }
    }
  });
}

}  // namespace higgs_rt
