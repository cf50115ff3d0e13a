#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::snake(const TensorView& x, const TensorView& alpha, const TensorView& out) {
  expect_rank("snake", "x", x, 2);
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  expect("snake", "x", x, DType::kF32, {channels, times});
  expect("snake", "alpha", alpha, DType::kF32, {channels});
  expect("snake", "out", out, DType::kF32, {channels, times});

  parallel(channels, 48 * times, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      kernels_.snake(x.as<float>() + c * times, alpha.as<float>()[c], out.as<float>() + c * times,
                     times);
    }
  });
}

}  // namespace higgs_rt
