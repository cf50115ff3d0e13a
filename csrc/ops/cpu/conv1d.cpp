// Both convolutions: they differ only in how the kernel walks weights and input.
#include <algorithm>

#include "core/check.h"
#include "ops/cpu/conv_scratch.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::run_conv(ConvArgs args, const TensorView& x, std::int64_t left, std::int64_t steps,
                      std::int64_t outputs, std::int64_t height,
                      const std::function<void(const ConvArgs&)>& kernel) {
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  const std::int64_t reach = (args.taps - 1) * std::abs(args.x_step);
  const std::int64_t tile = kernels_.conv_step;
  std::int64_t block =
      kConvBlockBytes / (static_cast<std::int64_t>(sizeof(float)) * channels) - reach;
  block = std::clamp(block / tile * tile, tile, kMaxConvSteps / tile * tile);
  const std::int64_t blocks = (steps + block - 1) / block;
  block = round_up((steps + blocks - 1) / blocks, tile);  // of nearly equal size
  // Few blocks: the outputs are split as well, at the height of the tiles.
  const std::int64_t tiles = (outputs + height - 1) / height;
  const std::int64_t groups = std::min(tiles, (4 * pool_.size() + blocks - 1) / blocks);
  const std::int64_t total = steps * outputs * channels * args.taps;

  parallel(blocks * groups, total / (blocks * groups), [&](std::int64_t begin, std::int64_t end) {
    std::int64_t filled = -1;
    ConvArgs part = args;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t start = item / groups * block, group = item % groups;
      part.count = std::min(block, steps - start);
      if (part.count <= 0) continue;
      const std::int64_t width = round_up(part.count, tile) + reach;
      const std::int64_t stride = round_up(width, 16) + 16;
      float* input = conv_scratch<0>(channels * stride);
      if (filled != start) {
        copy_padded(x.as<float>(), channels, times, start - left, width, stride, input,
                    [](std::int64_t, const float* from, float* to, std::int64_t size) {
                      std::copy_n(from, size, to);
                    });
      }
      filled = start;
      part.x = args.x_step < 0 ? input + reach : input;
      part.x_stride = stride;
      part.first = args.first + start * args.phases;
      part.begin = tiles * group / groups * height;
      part.end = std::min(tiles * (group + 1) / groups * height, outputs);
      kernel(part);
    }
  });
}

void CpuOps::conv1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                    const Conv1d& conv, const TensorView* residual, const TensorView& out) {
  expect_rank("conv1d", "x", x, 2);
  expect_rank("conv1d", "weight", weight, 3);
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  const std::int64_t outputs = weight.dim(0), taps = weight.dim(2);
  check_internal(
      conv.stride == 1 && conv.dilation >= 1 && conv.padding >= 0 && conv.output_padding == 0,
      "conv1d", "expected stride 1, dilation >= 1, padding >= 0 and no output_padding, got ",
      conv.stride, ", ", conv.dilation, ", ", conv.padding, ", ", conv.output_padding);
  const std::int64_t out_times = times + 2 * conv.padding - conv.dilation * (taps - 1);
  check_internal(channels > 0 && taps > 0 && out_times > 0, "conv1d",
                 "expected at least one channel, tap and output sample, got ", channels, ", ", taps,
                 " and ", out_times);
  expect("conv1d", "x", x, DType::kF32, {channels, times});
  expect("conv1d", "weight", weight, DType::kF32, {outputs, channels, taps});
  expect("conv1d", "bias", bias, DType::kF32, {outputs});
  expect("conv1d", "out", out, DType::kF32, {outputs, out_times});
  if (residual != nullptr) {
    expect("conv1d", "residual", *residual, DType::kF32, {outputs, out_times});
  }
  run_conv({.x = nullptr,
            .x_stride = 0,
            .x_step = conv.dilation,
            .weight = weight.as<float>(),
            .w_output = channels * taps,
            .w_channel = taps,
            .w_tap = 1,
            .bias = bias.as<float>(),
            .residual = residual == nullptr ? nullptr : residual->as<float>(),
            .out = out.as<float>(),
            .out_times = out_times,
            .channels = channels,
            .taps = taps,
            .phases = 1,
            .first = 0,
            .count = 0,
            .begin = 0,
            .end = 0},
           x, conv.padding, out_times, outputs, kConvTile, kernels_.conv);
}

}  // namespace higgs_rt
