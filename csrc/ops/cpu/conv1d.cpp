// Both convolutions: they differ only in how the kernel walks weights and input.
#include <algorithm>

#include "core/check.h"
#include "ops/cpu/conv_scratch.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

// Weights beyond this size come from main memory. A transposed convolution's walk over the channels
// of one output, a few bytes at a time and pages apart, would wait there for every line.
constexpr std::int64_t kRepackBytes = 8 << 20;
constexpr std::int64_t kPrefetchChannels = 8;
constexpr std::int64_t kRepackOutputs = 16;  // together, so that memory is read in longer runs

// Every phase must have the same number of taps: the codec's kernels are 2 * stride long.
bool needs_repack(const ConvArgs& args, std::int64_t outputs) {
  const std::int64_t bytes = args.w_channel * args.channels * std::int64_t{sizeof(float)};
  return args.phases > 1 &&
         (args.w_output % args.phases != 0 || (outputs > args.phases && bytes > kRepackBytes));
}

// Runs the kernel over weights [C, O, taps] copied to [o, C, padded taps], a few outputs at a time.
void conv_repacked(const Kernels& kernels, const ConvArgs& args) {
  const std::int64_t taps = args.w_output, padded = args.taps * args.phases;
  // An odd number of cache lines apart, or the outputs would share one set of the cache.
  const std::int64_t stride = round_up(args.channels * padded, 32) + 16;
  const std::int64_t last = (args.end + args.phases - 1) / args.phases;
  float* packed = conv_scratch<1>(kRepackOutputs * stride);
  for (std::int64_t first = args.begin / args.phases; first < last; first += kRepackOutputs) {
    const std::int64_t count = std::min(kRepackOutputs, last - first);
    for (std::int64_t c = 0; c < args.channels; ++c) {
      const float* from = args.weight + c * args.w_channel + first * taps;
      for (std::int64_t o = 0; o < count; ++o, from += taps) {
        float* to = packed + o * stride + c * padded;
        __builtin_prefetch(from + kPrefetchChannels * args.w_channel);
        std::copy(from, from + taps, to);
        std::fill(to + taps, to + padded, 0.0f);
      }
    }
    ConvArgs part = args;
    part.weight = packed;
    part.w_output = stride;
    part.w_channel = padded;
    part.bias += first;
    part.out += first * args.out_times;
    part.begin = std::max(args.begin - first * args.phases, std::int64_t{0});
    part.end = std::min(args.end - first * args.phases, count * args.phases);
    kernels.conv(part);
  }
}

}  // namespace

void CpuOps::run_conv(ConvArgs args, const TensorView& x, std::int64_t left, std::int64_t steps,
                      std::int64_t outputs) {
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  const std::int64_t reach = (args.taps - 1) * std::abs(args.x_step);
  const std::int64_t tile = kernels_.conv_step;
  std::int64_t block =
      kConvBlockBytes / (static_cast<std::int64_t>(sizeof(float)) * channels) - reach;
  block = std::clamp(block / tile * tile, tile, kMaxConvSteps / tile * tile);
  const std::int64_t blocks = (steps + block - 1) / block;
  block = round_up((steps + blocks - 1) / blocks, tile);  // of nearly equal size
  // Few blocks: the outputs are split as well, at the height of the tiles.
  constexpr std::int64_t kTile = 8;
  const std::int64_t tiles = (outputs + kTile - 1) / kTile;
  const std::int64_t groups = std::min(tiles, (4 * pool_.size() + blocks - 1) / blocks);
  const bool repack = needs_repack(args, outputs);
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
      part.begin = tiles * group / groups * kTile;
      part.end = std::min(tiles * (group + 1) / groups * kTile, outputs);
      if (repack) {
        conv_repacked(kernels_, part);
      } else {
        kernels_.conv(part);
      }
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
           x, conv.padding, out_times, outputs);
}

}  // namespace higgs_rt
