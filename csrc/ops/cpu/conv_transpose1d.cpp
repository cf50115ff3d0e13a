// The transposed convolution as `stride` ordinary ones, one for each output phase r: at output time
// t' = q stride + r - padding, out[o, t'] = sum over c, j of weight[c, o, r + j stride] x[c, q -
// j].
#include <algorithm>

#include "core/check.h"
#include "ops/cpu/conv_scratch.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kPackedRank = 4;

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

// Of the channels of an output, one after another, a line in each would be read far apart in
// `weight`, and a line holds the phases of one output only.
Tensor CpuOps::pack_transposed(const TensorView& weight, std::int64_t stride) {
  expect_rank("pack_transposed", "weight", weight, 3);
  const std::int64_t channels = weight.dim(0), outputs = weight.dim(1), taps = weight.dim(2);
  expect("pack_transposed", "weight", weight, DType::kF32, {channels, outputs, taps});
  const bool has_tiles = stride >= 2 && stride <= kMaxUpTile && taps % stride == 0;
  const std::int64_t tile = has_tiles ? up_tile_outputs(stride) : 1;
  const bool suits = has_tiles && outputs * stride % tile == 0;
  if (kernels_.conv_transposed == nullptr || !suits) return {};
  Tensor packed(device_, DType::kF32, {outputs * stride / tile, channels, taps / stride, tile});
  float* to = packed.as<float>();
  for (std::int64_t first = 0; first < outputs * stride; first += tile) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t k = 0; k < taps; k += stride) {
        for (std::int64_t v = first; v < first + tile; ++v) {
          *to++ = weight.as<float>()[(c * outputs + v / stride) * taps + v % stride + k];
        }
      }
    }
  }
  return packed;
}

void CpuOps::conv_transpose1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                              const Conv1d& conv, const TensorView& out) {
  expect_rank("conv_transpose1d", "x", x, 2);
  const bool packed = weight.shape.size() == kPackedRank;
  if (!packed) expect_rank("conv_transpose1d", "weight", weight, 3);
  const std::int64_t channels = x.dim(0), times = x.dim(1), stride = conv.stride;
  const std::int64_t outputs = packed ? out.dim(0) : weight.dim(1);
  const std::int64_t taps = packed ? weight.dim(2) * stride : weight.dim(2);
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
  const std::int64_t tile = packed ? weight.dim(3) : kConvTile;
  if (packed) {
    check_internal(kernels_.conv_transposed != nullptr && stride <= kMaxUpTile &&
                       tile == up_tile_outputs(stride),
                   "conv_transpose1d",
                   "packed weight: expected one of these kernels' "
                   "pack_transposed() for stride ",
                   stride, ", got ", to_string(weight.shape));
    expect("conv_transpose1d", "packed weight", weight, DType::kF32,
           {outputs * stride / tile, channels, taps / stride, tile});
  } else {
    expect("conv_transpose1d", "weight", weight, DType::kF32, {channels, outputs, taps});
  }
  expect("conv_transpose1d", "bias", bias, DType::kF32, {outputs});
  expect("conv_transpose1d", "out", out, DType::kF32, {outputs, out_times});

  const std::int64_t taps_per_phase = (taps + stride - 1) / stride;
  const std::int64_t first_q = conv.padding / stride;
  const std::int64_t last_q = (out_times - 1 + conv.padding) / stride;
  const ConvArgs args{.x = nullptr,
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
                      .end = 0};
  std::function<void(const ConvArgs&)> kernel = kernels_.conv;
  if (packed) {
    kernel = kernels_.conv_transposed;
  } else if (needs_repack(args, outputs * stride)) {
    kernel = [&](const ConvArgs& part) { conv_repacked(kernels_, part); };
  }
  run_conv(args, x, taps_per_phase - 1 - first_q, last_q - first_q + 1, outputs * stride, tile,
           kernel);
}

}  // namespace higgs_rt
