#include <vector>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::sum_code_tables(const TensorView& tables, const TensorView& bias,
                             const TensorView& codes, const TensorView& out) {
  expect_rank("sum_code_tables", "tables", tables, 3);
  expect_rank("sum_code_tables", "codes", codes, 2);
  const std::int64_t codebooks = tables.dim(0), vocab = tables.dim(1), size = tables.dim(2);
  const std::int64_t times = codes.dim(1);
  expect("sum_code_tables", "tables", tables, DType::kF32, {codebooks, vocab, size});
  expect("sum_code_tables", "bias", bias, DType::kF32, {size});
  expect("sum_code_tables", "codes", codes, DType::kI32, {codebooks, times});
  expect("sum_code_tables", "out", out, DType::kF32, {size, times});

  const std::int32_t* ids = codes.as<std::int32_t>();
  for (std::int64_t i = 0; i < codebooks * times; ++i) {
    check_internal(ids[i] >= 0 && ids[i] < vocab, "sum_code_tables", "codes: expected 0..",
                   vocab - 1, ", got ", ids[i]);
  }
  std::vector<float> total(static_cast<std::size_t>(size));
  for (std::int64_t t = 0; t < times; ++t) {
    kernels_.add_f32(bias.as<float>(), true, total.data(), size);
    for (std::int64_t k = 0; k < codebooks; ++k) {
      const float* row = tables.as<float>() + (k * vocab + ids[k * times + t]) * size;
      kernels_.add_f32(row, false, total.data(), size);
    }
    for (std::int64_t d = 0; d < size; ++d) {
      out.as<float>()[d * times + t] = total[static_cast<std::size_t>(d)];
    }
  }
}

}  // namespace higgs_rt
