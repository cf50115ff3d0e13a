#include <cstring>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::crop(const TensorView& x, std::int64_t begin, const TensorView& out) {
  expect_rank("crop", "x", x, 2);
  expect_rank("crop", "out", out, 2);
  const std::int64_t channels = x.dim(0), times = x.dim(1), kept = out.dim(1);
  expect("crop", "x", x, DType::kF32, {channels, times});
  expect("crop", "out", out, DType::kF32, {channels, kept});
  check_internal(begin >= 0 && begin + kept <= times, "crop", "begin: expected 0..", times - kept,
                 ", got ", begin);
  for (std::int64_t c = 0; c < channels; ++c) {
    std::memcpy(out.as<float>() + c * kept, x.as<float>() + c * times + begin,
                static_cast<std::size_t>(kept) * sizeof(float));
  }
}

}  // namespace higgs_rt
