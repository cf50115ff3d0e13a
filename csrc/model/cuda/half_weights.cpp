#include "model/cuda/half_weights.h"

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

class Packer {
 public:
  explicit Packer(CudaDevice& device) : device_(device) {}

  GpuArray<float> numbers(const std::vector<float>& values) const { return {device_, values}; }

  // Padded channels are zero before and after: alpha and scale 0.
  HalfSnakeWeights snake(const Tensor& alpha) const {
    std::vector<float> scale;
    for (const float value : copied(alpha)) scale.push_back(1.0F / (value + 1e-9F));
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

HalfBlockWeights pack_block(const Packer& pack, const CodecBlockWeights& block,
                            std::int64_t stride) {
  HalfBlockWeights out;
  out.snake = pack.snake(block.snake);
  out.upsample = pack.upsample(block.upsample, stride);
  for (const ResidualUnitWeights& unit : block.units) {
    out.units.push_back({pack.snake(unit.snake1), pack.conv(unit.conv1), pack.snake(unit.snake2),
                         pack.conv(unit.conv2)});
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
    out.blocks.push_back(pack_block(pack, weights.blocks[i], config.ratios[i]));
  }
  out.last_snake = pack.snake(weights.last_snake);
  out.last = pack.numbers(last_weight(weights.last));
  out.last_bias = pack.numbers(copied(weights.last.bias));
  out.last_channels = half_channels(weights.last.weight.view().dim(1));
  return out;
}

}  // namespace higgs_rt
