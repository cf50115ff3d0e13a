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

// One unit, and how its time is cut.
struct UnitPlan {
  const Kernels& kernels;
  const Ops::ResidualUnit& unit;
  const float* x;  // [channels, times]
  float* out;      // the same
  std::int64_t channels, times;
  std::int64_t reach;   // steps that the first convolution needs around one
  std::int64_t stride;  // of the scratch
};

// Steps [start, start + count), by way of two scratches.
void run_block(const UnitPlan& plan, std::int64_t start, std::int64_t count) {
  const Kernels& kernels = plan.kernels;
  float* input = conv_scratch<0>(plan.channels * plan.stride);
  float* middle = conv_scratch<2>(plan.channels * plan.stride);
  copy_padded(plan.x, plan.channels, plan.times, start - plan.reach / 2,
              round_up(count, kernels.conv_step) + plan.reach, plan.stride, input,
              [&](std::int64_t c, const float* from, float* to, std::int64_t size) {
                kernels.snake(from, plan.unit.alpha1.as<float>()[c], to, size);
              });
  ConvArgs part = args_of(plan.unit.weight1, plan.unit.bias1, plan.unit.dilation);
  part.x = input;
  part.x_stride = part.out_times = plan.stride;
  part.out = middle;
  part.count = count;
  kernels.conv(part);
  for (std::int64_t c = 0; c < plan.channels; ++c) {
    float* row = middle + c * plan.stride;
    kernels.snake(row, plan.unit.alpha2.as<float>()[c], row, count);
  }
  part = args_of(plan.unit.weight2, plan.unit.bias2, 1);
  part.x = middle;
  part.x_stride = plan.stride;
  part.out = plan.out;
  part.residual = plan.x;
  part.out_times = plan.times;
  part.first = start;
  part.count = count;
  kernels.conv(part);
}

}  // namespace

void CpuOps::residual_unit(const TensorView& x, const ResidualUnit& unit, const TensorView& out) {
  check_unit(x, unit, out);
  const std::int64_t channels = x.dim(0), times = x.dim(1), taps = unit.weight1.dim(2);
  const std::int64_t tile = kernels_.conv_step, reach = (taps - 1) * unit.dilation;
  const std::int64_t most = kConvBlockBytes / (channels * std::int64_t{sizeof(float)}) - reach;
  const std::int64_t blocks = times / std::clamp<std::int64_t>(most, 1, kMaxConvSteps) + 1;
  const std::int64_t wanted = std::max(blocks, 4 * std::int64_t{pool_.size()});
  const std::int64_t block = round_up(std::max(times / wanted, kMinSteps), tile);
  // Few blocks: the single operations can share out their outputs as well.
  if (block > most || times < 2 * pool_.size() * kMinSteps) {
    return Ops::residual_unit(x, unit, out);
  }
  const UnitPlan plan{kernels_, unit,  x.as<float>(), out.as<float>(),
                      channels, times, reach,         round_up(block + reach, 16) + 16};
  const std::int64_t cost = block * channels * (channels * (taps + 1) + 96);
  parallel((times + block - 1) / block, cost, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t start = begin * block; start < std::min(end * block, times); start += block) {
      run_block(plan, start, std::min(block, times - start));
    }
  });
}

}  // namespace higgs_rt
