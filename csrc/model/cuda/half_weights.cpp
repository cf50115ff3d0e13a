#include "model/cuda/half_weights.h"

#include "core/check.h"
#include "model/codec_weights.h"

namespace higgs_rt {

namespace {

// `values`, then zeros up to the padded number of channels.
std::vector<float> padded(const Tensor& values) {
  const std::int64_t count = values.view().size();
  std::vector<float> out(static_cast<std::size_t>(half_channels(count)), 0.0F);
  std::copy_n(values.as<float>(), count, out.begin());
  return out;
}

std::vector<float> copied(const Tensor& values) {
  return {values.as<float>(), values.as<float>() + values.view().size()};
}

std::vector<float> snake_scale(const Tensor& alpha) {
  std::vector<float> scale;
  for (const float value : copied(alpha)) scale.push_back(1.0F / (value + 1e-9F));
  return scale;
}

class Packer {
 public:
  explicit Packer(CudaDevice& device) : device_(device) {}

  GpuArray<float> numbers(const std::vector<float>& values) const { return {device_, values}; }

  GpuArray<unsigned char> bytes(const std::vector<unsigned char>& values) const {
    return {device_, values};
  }

  // Padded channels are zero before and after: alpha and scale 0.
  HalfSnakeWeights snake(const Tensor& alpha) const {
    std::vector<float> scale = snake_scale(alpha);
    const std::vector<float> values = padded(alpha);
    scale.resize(values.size(), 0.0F);
    return {numbers(values), numbers(scale)};
  }

  HalfConvWeights conv(const ConvWeights& conv) const {
    const TensorView& weight = conv.weight.view();
    const std::int64_t outputs = weight.dim(0), channels = weight.dim(1), taps = weight.dim(2);
    return {{device_, pack_half_conv(weight.as<float>(), outputs, channels, taps)},
            numbers(padded(conv.bias)),
            half_channels(channels),
            half_channels(outputs)};
  }

  HalfConvWeights unit_conv(const ConvWeights& conv) const {
    const TensorView& weight = conv.weight.view();
    const std::int64_t channels = weight.dim(1), taps = weight.dim(2);
    const std::int32_t wide = half_channels(channels);
    if (!half_unit_fits(wide)) return this->conv(conv);
    return {{device_, pack_half_unit_conv(weight.as<float>(), channels, taps)},
            numbers(padded(conv.bias)),
            wide,
            wide};
  }

  HalfConvWeights upsample(const ConvWeights& conv, std::int64_t stride) const {
    const TensorView& weight = conv.weight.view();
    const std::int64_t channels = weight.dim(0), outputs = weight.dim(1);
    return {{device_, pack_half_conv_transpose(weight.as<float>(), outputs, channels, stride)},
            numbers(padded(conv.bias)),
            half_channels(channels),
            half_channels(outputs)};
  }

 private:
  CudaDevice& device_;
};

// `after`: the snake after the block; `last`: what follows that, or null.
std::vector<unsigned char> pack_joined(const CodecBlockWeights& block, std::int64_t stride,
                                       const Tensor& after, const ConvWeights* last) {
  std::vector<std::vector<float>> scales;
  scales.reserve(2 * block.units.size() + 1);  // the vectors stay where they are
  const auto snake = [&](const Tensor& alpha) {
    scales.push_back(snake_scale(alpha));
    return HalfBlockNumbers::Snake{alpha.as<float>(), scales.back().data()};
  };
  HalfBlockNumbers numbers = {};
  numbers.channels = block.upsample.weight.view().dim(0);
  numbers.outputs = block.upsample.weight.view().dim(1);
  numbers.ratio = stride;
  numbers.up = block.upsample.weight.as<float>();
  numbers.up_bias = block.upsample.bias.as<float>();
  check_internal(block.units.size() == std::size(numbers.units), "cuda codec", "expected ",
                 std::size(numbers.units), " units, got ", block.units.size());
  for (std::size_t i = 0; i < block.units.size(); ++i) {
    const ResidualUnitWeights& unit = block.units[i];
    numbers.units[i] = {.before = snake(unit.snake1),
                        .wide = unit.conv1.weight.as<float>(),
                        .wide_bias = unit.conv1.bias.as<float>(),
                        .between = snake(unit.snake2),
                        .point = unit.conv2.weight.as<float>(),
                        .point_bias = unit.conv2.bias.as<float>()};
  }
  numbers.after = snake(after);
  if (last != nullptr) {
    numbers.last = last->weight.as<float>();
    numbers.last_bias = last->bias.as<float>();
  }
  return pack_half_block(numbers);
}

HalfBlockWeights pack_block(const Packer& pack, const CodecWeights& weights, std::size_t index,
                            std::int64_t stride) {
  const CodecBlockWeights& block = weights.blocks[index];
  const bool last = index + 1 == weights.blocks.size();
  HalfBlockWeights out;
  out.channels = half_channels(block.upsample.weight.view().dim(0));
  out.outputs = half_channels(block.upsample.weight.view().dim(1));
  if (half_block_fits(out.channels, out.outputs, static_cast<std::int32_t>(stride), last)) {
    const Tensor& after = last ? weights.last_snake : weights.blocks[index + 1].snake;
    out.snake = pack.snake(block.snake);
    out.joined = pack.bytes(pack_joined(block, stride, after, last ? &weights.last : nullptr));
    return out;
  }
  out.snake = pack.snake(block.snake);
  out.upsample = pack.upsample(block.upsample, stride);
  for (const ResidualUnitWeights& unit : block.units) {
    out.units.push_back({pack.snake(unit.snake1), pack.unit_conv(unit.conv1),
                         pack.snake(unit.snake2), pack.unit_conv(unit.conv2)});
  }
  return out;
}

// [1, channels, kLastTaps] to [kLastTaps, padded channels].
std::vector<float> last_weight(const ConvWeights& conv) {
  const std::int64_t channels = conv.weight.view().dim(1), wide = half_channels(channels);
  std::vector<float> out(static_cast<std::size_t>(kLastTaps * wide), 0.0F);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t k = 0; k < kLastTaps; ++k) {
      out[static_cast<std::size_t>(k * wide + c)] = conv.weight.as<float>()[c * kLastTaps + k];
    }
  }
  return out;
}

}  // namespace

HalfCodecWeights load_half_codec_weights(const CodecConfig& config, const Checkpoint& checkpoint,
                                         CudaDevice& device) {
  static_assert(kLastTaps == kCodecKernel);
  const std::unique_ptr<Device> host = make_cpu_device();
  const CodecWeights weights = load_codec_weights(config, checkpoint, *host);
  const Packer pack(device);
  HalfCodecWeights out;
  out.tables = pack.numbers(copied(weights.tables));
  out.table_bias = pack.numbers(copied(weights.table_bias));
  out.first = pack.conv(weights.first);
  for (std::size_t i = 0; i < weights.blocks.size(); ++i) {
    out.blocks.push_back(pack_block(pack, weights, i, config.ratios[i]));
  }
  out.last_snake = pack.snake(weights.last_snake);
  out.last = pack.numbers(last_weight(weights.last));
  out.last_bias = pack.numbers(copied(weights.last.bias));
  out.last_channels = half_channels(weights.last.weight.view().dim(1));
  return out;
}

}  // namespace higgs_rt
