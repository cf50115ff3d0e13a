#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::rope(const TensorView& x, const TensorView& positions, const TensorView& table) {
  expect_rank("rope", "x", x, 3);
  expect_rank("rope", "table", table, 3);
  const std::int64_t rows = x.dim(0), heads = x.dim(1), dim = x.dim(2), half = dim / 2;
  check_internal(dim % 2 == 0, "rope", "x: expected an even head size, got ", dim);
  expect("rope", "x", x, DType::kF32, {rows, heads, dim});
  expect("rope", "positions", positions, DType::kI32, {rows});
  expect("rope", "table", table, DType::kF32, {table.dim(0), half, 2});

  const std::int32_t* position = positions.as<std::int32_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    check_internal(position[r] >= 0 && position[r] < table.dim(0), "rope",
                   "positions: expected 0..", table.dim(0) - 1, ", got ", position[r]);
  }
  parallel(rows, 16 * heads * dim, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* angles = table.as<float>() + position[r] * dim;
      for (std::int64_t h = 0; h < heads; ++h) {
        float* low = x.as<float>() + (r * heads + h) * dim;
        float* high = low + half;
        for (std::int64_t i = 0; i < half; ++i) {
          // In fp64: a rounding each, whether or not the compiler joins products and sums.
          const double cosine = angles[2 * i], sine = angles[2 * i + 1];
          const double a = low[i], b = high[i];
          low[i] = static_cast<float>(a * cosine - b * sine);
          high[i] = static_cast<float>(b * cosine + a * sine);
        }
      }
    }
  });
}

}  // namespace higgs_rt
