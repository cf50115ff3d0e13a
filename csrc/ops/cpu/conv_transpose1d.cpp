// The transposed convolution as `stride` ordinary ones, one for each output phase r: at output time
// t' = q stride + r - padding, out[o, t'] = sum over c, j of weight[c, o, r + j stride] x[c, q -
// j].
#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::conv_transpose1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                              const Conv1d& conv, const TensorView& out) {
  expect_rank("conv_transpose1d", "x", x, 2);
  expect_rank("conv_transpose1d", "weight", weight, 3);
  const std::int64_t channels = x.dim(0), times = x.dim(1), stride = conv.stride;
  const std::int64_t outputs = weight.dim(1), taps = weight.dim(2);
  check_internal(stride >= 1 && conv.dilation == 1 && conv.padding >= 0 && conv.output_padding >= 0,
                 "conv_transpose1d",
                 "expected stride >= 1, dilation 1, padding and output_padding >= 0, got ", stride,
                 ", ", conv.dilation, ", ", conv.padding, ", ", conv.output_padding);
  const std::int64_t out_times =
      (times - 1) * stride - 2 * conv.padding + taps + conv.output_padding;
  check_internal(channels > 0 && taps > 0 && out_times > 0, "conv_transpose1d",
                 "expected at least one channel, tap and output sample, got ", channels, ", ", taps,
                 " and ", out_times);
  expect("conv_transpose1d", "x", x, DType::kF32, {channels, times});
  expect("conv_transpose1d", "weight", weight, DType::kF32, {channels, outputs, taps});
  expect("conv_transpose1d", "bias", bias, DType::kF32, {outputs});
  expect("conv_transpose1d", "out", out, DType::kF32, {outputs, out_times});

  const std::int64_t taps_per_phase = (taps + stride - 1) / stride;
  const std::int64_t first_q = conv.padding / stride;
  const std::int64_t last_q = (out_times - 1 + conv.padding) / stride;
  run_conv({.x = nullptr,
            .x_stride = 0,
            .x_step = -1,
            .weight = weight.as<float>(),
            .w_output = taps,
            .w_channel = outputs * taps,
            .w_tap = stride,
            .bias = bias.as<float>(),
            .residual = nullptr,
            .out = out.as<float>(),
            .out_times = out_times,
            .channels = channels,
            .taps = taps_per_phase,
            .phases = stride,
            .first = first_q * stride - conv.padding,
            .count = 0,
            .begin = 0,
            .end = 0},
           x, taps_per_phase - 1 - first_q, last_q - first_q + 1, outputs * stride);
}

}  // namespace higgs_rt
