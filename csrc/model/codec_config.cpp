#include "model/codec_config.h"

#include <cstdlib>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

constexpr std::int64_t kMaxFrameSamples = 1'000'000;

void read_transformers(const JsonObject& root, CodecConfig& config) {
  config.layout = Layout::kTransformers;
  config.codebook_size = root.positive("codebook_size");
  config.codebook_dim = root.positive("codebook_dim");
  const JsonObject acoustic = root.object("acoustic_model_config");
  acoustic.require_text("model_type", "dac");
  config.latent = acoustic.positive("hidden_size");
  config.decoder_hidden = acoustic.positive("decoder_hidden_size");
  config.ratios = acoustic.integers("upsampling_ratios");
}

void read_original(const JsonObject& root, const Checkpoint& checkpoint, CodecConfig& config) {
  config.layout = Layout::kOriginal;
  config.codebook_size = root.positive("bins");
  config.codebook_dim = root.positive("codebook_dim");
  config.latent = root.positive("D");
  config.ratios = root.integers("ratios");
  // The file has no decoder width: it is the first convolution's number of outputs.
  config.decoder_hidden =
      static_cast<std::int32_t>(checkpoint.shape("decoder_2.model.0.bias").at(0));
}

void check_ratios(const JsonObject& root, const CodecConfig& config) {
  std::int64_t divisor = 1;
  std::int64_t hop = 1;
  check(!config.ratios.empty() && config.ratios.size() <= 8, root.where().c_str(),
        "expected 1 to 8 upsampling ratios, got ", config.ratios.size());
  for (const std::int32_t ratio : config.ratios) {
    check(ratio >= 1 && ratio <= 64, root.where().c_str(),
          "expected upsampling ratios in [1, 64], got ", ratio);
    divisor *= 2;
    hop *= ratio;
  }
  check(hop <= kMaxFrameSamples, root.where().c_str(), "expected at most ", kMaxFrameSamples,
        " samples a frame, got ", hop);
  check(config.decoder_hidden % divisor == 0, root.where().c_str(),
        "expected a decoder width divisible by ", divisor, ", got ", config.decoder_hidden);
}

std::string original_decoder_name(const std::string& rest, std::int32_t num_blocks) {
  const auto model = [](std::int64_t index) { return "decoder_2.model." + std::to_string(index); };
  const std::size_t dot = rest.find('.');
  const std::string first = rest.substr(0, dot);
  const std::string tail = rest.substr(dot);  // begins with a dot
  if (first == "conv1") return model(0) + tail;
  if (first == "snake1") return model(num_blocks + 1) + tail;
  if (first == "conv2") return model(num_blocks + 2) + tail;
  // block.B.PART.…
  const std::size_t after_index = tail.find('.', 1);
  const std::string base = model(std::stoi(tail.substr(1, after_index - 1)) + 1) + ".block.";
  const std::string part = tail.substr(after_index + 1);
  if (part.starts_with("snake1.")) return base + "0" + part.substr(6);
  if (part.starts_with("conv_t1.")) return base + "1" + part.substr(7);
  // res_unitN.{snake1,conv1,snake2,conv2}.…, N = 1..3 in places 2..4
  const std::string inner = part.substr(10);
  const std::string step = inner.substr(0, inner.find('.'));
  const int index = (step.ends_with('2') ? 2 : 0) + (step.starts_with("conv") ? 1 : 0);
  return base + std::to_string(part[8] - '0' + 1) + ".block." + std::to_string(index) +
         inner.substr(step.size());
}

}  // namespace

std::string original_codec_name(const std::string& name, std::int32_t num_blocks) {
  const std::string decoder = "acoustic_decoder.";
  const std::string quantizer = "quantizer.quantizers.";
  if (name.starts_with(decoder))
    return original_decoder_name(name.substr(decoder.size()), num_blocks);
  if (name.starts_with("fc2.")) return "fc_post2." + name.substr(4);
  if (name.starts_with(quantizer)) {
    std::string rest = name.substr(quantizer.size());
    const std::size_t codebook = rest.find(".codebook.");
    if (codebook != std::string::npos) rest.replace(codebook, 10, "._codebook.");
    return "quantizer.vq.layers." + rest;
  }
  fail(ErrorCode::kInternal, "codec", "no original name for ", name);
}

CodecConfig read_codec_config(const Checkpoint& checkpoint) {
  const JsonObject root = JsonObject::read(checkpoint.directory() + "/config.json");
  CodecConfig config;
  config.sample_rate = root.positive("sample_rate");
  if (root.text("model_type", "") == "higgs_audio_v2_tokenizer") {
    read_transformers(root, config);
  } else if (root.has("ratios")) {
    read_original(root, checkpoint, config);
  } else {
    root.refuse("model_type", "\"higgs_audio_v2_tokenizer\", or the original codec's field ratios");
  }
  check_ratios(root, config);
  const bool original = config.layout == Layout::kOriginal;
  const std::string layers = original ? "quantizer.vq.layers." : "quantizer.quantizers.";
  const auto projection = [&](std::int32_t index) {
    return layers + std::to_string(index) + ".project_out.weight";
  };
  while (checkpoint.contains(projection(config.num_codebooks))) ++config.num_codebooks;
  for (const std::string& name : checkpoint.names()) {
    if (!name.starts_with(layers) || !name.ends_with(".project_out.weight")) continue;
    const long index = std::strtol(name.c_str() + layers.size(), nullptr, 10);
    if (index >= config.num_codebooks) checkpoint.shape(projection(config.num_codebooks));
  }
  const Shape& shape = checkpoint.shape(projection(0));
  check(shape.size() == 2, checkpoint.place(projection(0)).c_str(), "expected 2 axes, got ",
        to_string(shape));
  config.fused = static_cast<std::int32_t>(shape[0]);
  return config;
}

}  // namespace higgs_rt
