#include <algorithm>

#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) {
  expect_rank("swiglu", "gate", gate, 2);
  const std::int64_t rows = gate.dim(0), size = gate.dim(1);
  expect("swiglu", "gate", gate, DType::kF32, {rows, size});
  expect("swiglu", "up", up, DType::kF32, {rows, size});
  expect("swiglu", "out", out, DType::kF32, {rows, size});

  // All elements alike, so rows need not be kept apart; ranges start at whole vectors.
  constexpr std::int64_t kPiece = 64;
  const std::int64_t total = rows * size;
  parallel((total + kPiece - 1) / kPiece, 32 * kPiece, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * kPiece;
    kernels_.swiglu(gate.as<float>() + at, up.as<float>() + at, out.as<float>() + at,
                    std::min(end * kPiece, total) - at);
  });
}

}  // namespace higgs_rt
