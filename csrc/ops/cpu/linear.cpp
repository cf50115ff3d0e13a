#include <algorithm>

#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::linear(const TensorView& x, const TensorView& weight, const TensorView& out,
                    bool accumulate, RowKind) {
  expect_rank("linear", "x", x, 2);
  expect_rank("linear", "out", out, 2);
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = out.dim(1);
  expect("linear", "x", x, DType::kF32, {rows, inputs});
  expect_weight("linear", "weight", weight, {outputs, inputs});
  expect("linear", "out", out, DType::kF32, {rows, outputs});
  if (rows == 0) return;

  const LinearArgs args{x.as<float>(), weight.data, out.as<float>(), rows,
                        inputs,        outputs,     accumulate};
  const auto kernel = weight.dtype == DType::kF32 ? kernels_.linear_f32 : kernels_.linear_bf16;
  // Outputs go by eight, the height of the tiles.
  constexpr std::int64_t kTile = 8;
  const std::int64_t tiles = (outputs + kTile - 1) / kTile;
  // A weight takes as long to fetch as a few multiply-adds, however few rows it meets.
  parallel(tiles, kTile * inputs * std::max<std::int64_t>(rows, 4),
           [&](std::int64_t begin, std::int64_t end) {
             kernel(args, begin * kTile, std::min(end * kTile, outputs));
           });
}

}  // namespace higgs_rt
