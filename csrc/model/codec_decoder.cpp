#include "model/codec_decoder.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <vector>

#include "core/check.h"
#include "model/codec_spec.h"
#include "model/codec_weights.h"
#include "model/cuda/half_codec.h"
#include "model/receptive_field.h"

namespace higgs_rt {

namespace {

// Frames decoded at once; longer utterances go block by block, so that memory stays bounded.
constexpr std::int32_t kBlockFrames = 128;

class NativeCodecDecoder final : public CodecDecoder {
 public:
  NativeCodecDecoder(const CodecConfig& config, CodecWeights weights, Ops& ops)
      : config_(config), weights_(std::move(weights)), ops_(ops), spec_(codec_spec(config)) {
    for (std::size_t i = 0; i < weights_.blocks.size(); ++i) {
      Tensor& weight = weights_.blocks[i].upsample.weight;
      Tensor packed = ops.pack_transposed(weight, config.ratios[i]);
      if (packed.view()) weight = std::move(packed);
    }
    widest_ = std::max(config.latent, config.decoder_hidden);
    std::int64_t channels = config.decoder_hidden;
    std::int64_t rate = 1;
    for (const std::int32_t ratio : config.ratios) {
      rate *= ratio;
      channels /= 2;
      widest_ = std::max(widest_, channels * rate);
    }
  }

  const CodecSpec& spec() const override { return spec_; }

  void decode_range(std::span<const std::int32_t> codes, std::int32_t num_frames,
                    std::int32_t begin, std::int32_t end, std::span<float> pcm) override {
    check_codec_job(spec_, {codes, num_frames, begin, end, pcm});
    const auto hop = static_cast<std::size_t>(spec_.samples_per_frame);
    for (std::int32_t first = begin; first < end; first += kBlockFrames) {
      const std::int32_t last = std::min(first + kBlockFrames, end);
      run(codes, num_frames, first, last,
          pcm.subspan(static_cast<std::size_t>(first - begin) * hop,
                      static_cast<std::size_t>(last - first) * hop));
    }
    ops_.device().synchronize();
  }

 private:
  // Part of the utterance between two layers: channels x times, in x_, and its first time.
  struct Part {
    TensorView x;
    std::int64_t begin = 0;
  };

  // Writes the samples of frames [begin, end) to pcm. Every stage computes only the times that
  // these need; padding beyond a cut reaches only times that are cut off later.
  void run(std::span<const std::int32_t> codes, std::int32_t num_frames, std::int32_t begin,
           std::int32_t end, std::span<float> pcm) {
    const std::int64_t hop = spec_.samples_per_frame;
    const auto needed = needed_inputs(config_.ratios, {begin * hop, end * hop - 1});
    const std::int64_t from = std::max<std::int64_t>(needed[0].first, 0);
    const std::int64_t to = std::min<std::int64_t>(needed[0].last + 1, num_frames);
    reserve(to - from);
    const TensorView latent = part(temp_, config_.latent, to - from);
    ops_.sum_code_tables(weights_.tables, weights_.table_bias, upload(codes, num_frames, from, to),
                         latent);
    Part now{part(x_, config_.decoder_hidden, to - from), from};
    conv(latent, weights_.first, 1, nullptr, now.x);
    std::int64_t rate = 1;
    for (std::size_t i = 0; i < weights_.blocks.size(); ++i) {
      now = cut(now, needed[1 + i], num_frames * rate);
      now = {block(weights_.blocks[i], config_.ratios[i], now.x), now.begin * config_.ratios[i]};
      rate *= config_.ratios[i];
    }
    now = cut(now, needed.back(), num_frames * rate);
    ops_.snake(now.x, weights_.last_snake, now.x);
    const TensorView wave = part(temp_, 1, now.x.dim(1));
    conv(now.x, weights_.last, 1, nullptr, wave);
    ops_.device().copy_to_host(pcm.data(), wave.as<float>() + (begin * hop - now.begin),
                               pcm.size_bytes());
  }

  // Codes of frames [from, to) on the device, [num_codebooks, to - from].
  TensorView upload(std::span<const std::int32_t> codes, std::int32_t num_frames, std::int64_t from,
                    std::int64_t to) {
    std::vector<std::int32_t> window;
    for (std::int64_t k = 0; k < spec_.num_codebooks; ++k) {
      const auto row = codes.begin() + k * num_frames;
      window.insert(window.end(), row + from, row + to);
    }
    const TensorView ids{codes_.view().data, DType::kI32, {spec_.num_codebooks, to - from}};
    ops_.device().copy_from_host(ids.data, window.data(), window.size() * sizeof(window[0]));
    return ids;
  }

  // The times of `now` that are in `needed` and in the utterance, [0, length).
  Part cut(const Part& now, const TimeRange& needed, std::int64_t length) {
    const std::int64_t begin = std::max<std::int64_t>(needed.first, 0);
    const std::int64_t end = std::min(needed.last + 1, length);
    if (begin == now.begin && end == now.begin + now.x.dim(1)) return now;
    const TensorView kept = part(other_, now.x.dim(0), end - begin);
    ops_.crop(now.x, begin - now.begin, kept);
    std::swap(x_, other_);
    return {kept, begin};
  }

  // Upsamples x (in x_) by `ratio` and leaves the result in x_.
  TensorView block(const CodecBlockWeights& weights, std::int64_t ratio, const TensorView& x) {
    ops_.snake(x, weights.snake, x);
    const Ops::Conv1d up{ratio, 1, (ratio + 1) / 2, ratio % 2};
    const std::int64_t channels = x.dim(0) / 2, times = x.dim(1) * ratio;
    ops_.conv_transpose1d(x, weights.upsample.weight, weights.upsample.bias, up,
                          part(other_, channels, times));
    std::swap(x_, other_);
    for (std::size_t i = 0; i < weights.units.size(); ++i) {
      const ResidualUnitWeights& unit = weights.units[i];
      ops_.residual_unit(part(x_, channels, times),
                         {.alpha1 = unit.snake1,
                          .weight1 = unit.conv1.weight,
                          .bias1 = unit.conv1.bias,
                          .dilation = kCodecDilations[i],
                          .alpha2 = unit.snake2,
                          .weight2 = unit.conv2.weight,
                          .bias2 = unit.conv2.bias,
                          .work = part(temp_, channels, times)},
                         part(other_, channels, times));
      std::swap(x_, other_);
    }
    return part(x_, channels, times);
  }

  // Same length: padded by half the kernel's reach on each side.
  void conv(const TensorView& x, const ConvWeights& weights, std::int64_t dilation,
            const TensorView* residual, const TensorView& out) {
    const std::int64_t kernel = weights.weight.view().dim(2);
    const Ops::Conv1d same{1, dilation, dilation * (kernel - 1) / 2, 0};
    ops_.conv1d(x, weights.weight, weights.bias, same, residual, out);
  }

  void reserve(std::int64_t frames) {
    if (frames <= capacity_) return;
    capacity_ = 0;
    for (Tensor* buffer : {&x_, &other_, &temp_}) {
      *buffer = Tensor();
      *buffer = Tensor(ops_.device(), DType::kF32, {widest_ * frames});
    }
    codes_ = Tensor(ops_.device(), DType::kI32, {spec_.num_codebooks, frames});
    capacity_ = frames;
  }

  static TensorView part(const Tensor& buffer, std::int64_t channels, std::int64_t length) {
    check_internal(channels * length <= buffer.view().size(), "codec", "expected at most ",
                   buffer.view().size(), " numbers, got ", channels, " x ", length);
    return {buffer.view().data, DType::kF32, {channels, length}};
  }

  CodecConfig config_;
  CodecWeights weights_;
  Ops& ops_;
  CodecSpec spec_;
  std::int64_t widest_ = 0;    // most numbers per frame between two layers
  std::int64_t capacity_ = 0;  // frames that the buffers hold
  Tensor x_, other_, temp_;    // [widest_ * capacity_]
  Tensor codes_;               // [num_codebooks, capacity_]
};

}  // namespace

namespace {

// The original release is a torch pickle.
void refuse_pickle(const std::string& directory) {
  namespace fs = std::filesystem;
  if (!fs::exists(fs::path(directory) / "model.pth")) return;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".safetensors") return;
  }
  fail(ErrorCode::kUnsupported, directory.c_str(),
       "expected a safetensors file, got only model.pth (a torch pickle; higgs_rt.codec.export "
       "writes its decoder as safetensors)");
}

}  // namespace

void CodecDecoder::start(std::span<const Job> jobs) {
  for (const Job& job : jobs) {
    decode_range(job.codes, job.num_frames, job.begin, job.end, job.pcm);
  }
}

std::unique_ptr<CodecDecoder> load_codec_decoder(const std::string& directory, Ops& ops) {
  if (ops.device().kind() != DeviceKind::kCuda) {
    return load_codec_decoder(directory, ops, CodecPrecision::kFloat);
  }
  const HalfCodecMemory memory = half_codec_memory(ops.device());
  if (memory.there >= memory.wanted) {
    return load_codec_decoder(directory, ops, CodecPrecision::kHalf);
  }
  std::cerr << "[codec] decodes in fp32, one stream at a time: " << ops.device().name() << " has "
            << memory.there << " bytes of shared memory a block, fp16 in batches wants "
            << memory.wanted << '\n';
  return load_codec_decoder(directory, ops, CodecPrecision::kFloat);
}

std::unique_ptr<CodecDecoder> load_codec_decoder(const std::string& directory, Ops& ops,
                                                 CodecPrecision precision) {
  refuse_pickle(directory);
  const Checkpoint checkpoint(directory);
  const CodecConfig config = read_codec_config(checkpoint);
  if (precision == CodecPrecision::kHalf) {
    return make_half_codec_decoder(config, checkpoint, ops.device());
  }
  CodecWeights weights = load_codec_weights(config, checkpoint, ops.device());
  return std::make_unique<NativeCodecDecoder>(config, std::move(weights), ops);
}

}  // namespace higgs_rt
