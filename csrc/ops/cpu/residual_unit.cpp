// A residual unit block by block of time: between its four operations nothing leaves the
// second-level cache. The same arithmetic for each sample as the four one after another.
#include "core/check.h"
#include "ops/cpu/conv_scratch.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

// Shorter ones would copy too much of their neighbours: 2 x 27 steps at dilation 9.
constexpr std::int64_t kMinSteps = 512;

// Arguments of a convolution from one scratch to another or to the output.
ConvArgs args_of(const TensorView& weight, const TensorView& bias, std::int64_t dilation) {
  const std::int64_t channels = weight.dim(1), taps = weight.dim(2);
  return {.x = nullptr,
          .x_stride = 0,
          .x_step = dilation,
          .weight = weight.as<float>(),
          .w_output = channels * taps,
          .w_channel = taps,
          .w_tap = 1,
          .bias = bias.as<float>(),
          .residual = nullptr,
          .out = nullptr,
          .out_times = 0,
          .channels = channels,
          .taps = taps,
          .phases = 1,
          .first = 0,
          .count = 0,
          .begin = 0,
          .end = weight.dim(0)};
}

void check_unit(const TensorView& x, const Ops::ResidualUnit& unit, const TensorView& out) {
  expect_rank("residual_unit", "x", x, 2);
  expect_rank("residual_unit", "weight1", unit.weight1, 3);
  const std::int64_t channels = x.dim(0), taps = unit.weight1.dim(2);
  const auto have = [&](const char* name, const TensorView& view, const Shape& shape) {
    expect("residual_unit", name, view, DType::kF32, shape);
  };
  have("x", x, {channels, x.dim(1)});
  have("out", out, x.shape);
  have("work", unit.work, x.shape);
  have("weight1", unit.weight1, {channels, channels, taps});
  have("weight2", unit.weight2, {channels, channels, 1});
  for (const TensorView* view : {&unit.alpha1, &unit.bias1, &unit.alpha2, &unit.bias2}) {
    have("alpha and bias", *view, {channels});
  }
  check_internal(taps % 2 == 1 && unit.dilation >= 1, "residual_unit",
                 "expected an odd number of taps and a dilation of 1 or more, got ", taps, " and ",
                 unit.dilation);
}

}  // namespace

void CpuOps::residual_unit(const TensorView& x, const ResidualUnit& unit, const TensorView& out) {
  check_unit(x, unit, out);
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  const std::int64_t tile = kernels_.conv_step;
  const std::int64_t reach = (unit.weight1.dim(2) - 1) * unit.dilation;
  const std::int64_t most = kConvBlockBytes / (channels * std::int64_t{sizeof(float)}) - reach;
  const std::int64_t blocks = times / std::clamp<std::int64_t>(most, 1, kMaxConvSteps) + 1;
  const std::int64_t wanted = std::max(blocks, 4 * std::int64_t{pool_.size()});
  const std::int64_t block = round_up(std::max(times / wanted, kMinSteps), tile);
  // Few blocks: the single operations can share out their outputs as well.
  if (block > most || times < 2 * pool_.size() * kMinSteps) {
    return Ops::residual_unit(x, unit, out);
  }
  const ConvArgs conv1 = args_of(unit.weight1, unit.bias1, unit.dilation);
  const ConvArgs conv2 = args_of(unit.weight2, unit.bias2, 1);
  const std::int64_t cost = block * channels * (channels * (unit.weight1.dim(2) + 1) + 96);
  const std::int64_t stride = round_up(round_up(block, tile) + reach, 16) + 16;

  parallel((times + block - 1) / block, cost, [&](std::int64_t begin, std::int64_t end) {
    float* input = conv_scratch<0>(channels * stride);
    float* middle = conv_scratch<2>(channels * stride);
    for (std::int64_t start = begin * block; start < std::min(end * block, times); start += block) {
      const std::int64_t count = std::min(block, times - start);
      copy_padded(x.as<float>(), channels, times, start - reach / 2, round_up(count, tile) + reach,
                  stride, input,
                  [&](std::int64_t c, const float* from, float* to, std::int64_t size) {
                    kernels_.snake(from, unit.alpha1.as<float>()[c], to, size);
                  });
      ConvArgs part = conv1;
      part.x = input;
      part.x_stride = part.out_times = stride;
      part.out = middle;
      part.count = count;
      kernels_.conv(part);
      for (std::int64_t c = 0; c < channels; ++c) {
        float* row = middle + c * stride;
        kernels_.snake(row, unit.alpha2.as<float>()[c], row, count);
      }
      part = conv2;
      part.x = middle;
      part.x_stride = stride;
      part.out = out.as<float>();
      part.residual = x.as<float>();
      part.out_times = times;
      part.first = start;
      part.count = count;
      kernels_.conv(part);
    }
  });
}

}  // namespace higgs_rt
