#include <cstring>

#include "check.h"
#include "model/edited_checkpoint.h"
#include "model/weights.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

const std::string kGolden = std::string(HIGGS_RT_GOLDEN_DIR) + "/lm/";

struct Edited {
  explicit Edited(const std::string& layout)
      : config(read_model_config(kGolden + layout)), tensors(read_tensors(kGolden + layout)) {}

  ModelWeights load() {
    write_tensors(directory, tensors);
    return load_weights(config, std::make_shared<const Checkpoint>(directory.path()), *device);
  }

  // Rows [begin, end) of a tensor under another name.
  void add_part(const std::string& source, const std::string& name, std::int64_t begin,
                std::int64_t end) {
    StoredTensor part = tensors.at(source);
    const std::size_t row = part.bytes.size() / static_cast<std::size_t>(part.shape[0]);
    part.bytes = part.bytes.substr(static_cast<std::size_t>(begin) * row,
                                   static_cast<std::size_t>(end - begin) * row);
    part.shape[0] = end - begin;
    tensors[name] = part;
  }

  ModelConfig config;
  StoredTensors tensors;
  TemporaryDirectory directory;
  std::unique_ptr<Device> device = make_cpu_device();
};

bool same_bytes(const TensorView& a, const StoredTensor& b) {
  return a.bytes() == b.bytes.size() && std::memcmp(a.data, b.bytes.data(), b.bytes.size()) == 0;
}

}  // namespace

TEST("weights: both layouts, mapped without a copy") {
  for (const std::string layout : {"transformers", "original"}) {
    Edited edited(layout);
    const ModelWeights weights = edited.load();
    std::int64_t elements = 0;
    for (const auto& [name, tensor] : edited.tensors) elements += num_elements(tensor.shape);
    EXPECT_EQ(weights.num_parameters, elements);
    EXPECT_EQ(weights.dtype, layout == "original" ? "bf16" : "f32");
    EXPECT(weights.owned.empty());
    const bool original = layout == "original";
    const std::string layer = original ? "layers.1." : "model.layers.1.";
    EXPECT(same_bytes(weights.layers[1].k, edited.tensors.at(layer + "self_attn.k_proj.weight")));
    EXPECT(same_bytes(weights.layers[1].audio.ffn.down,
                      edited.tensors.at(layer + "audio_mlp.down_proj.weight")));
    EXPECT(same_bytes(weights.layers[1].text.post_attention_norm,
                      edited.tensors.at(layer + "post_attention_layernorm.weight")));
  }
}

TEST("weights: missing tensors are listed together") {
  Edited edited("transformers");
  edited.tensors.erase("model.norm.weight");
  EXPECT_THROWS(edited.load(), "] expected tensor model.norm.weight, got none");
  for (const char* part : {"q", "k", "v", "o"}) {
    edited.tensors.erase(std::string("model.layers.0.self_attn.") + part + "_proj.weight");
  }
  edited.tensors.erase("audio_lm_head.weight");
  EXPECT_THROWS(edited.load(),
                "model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight");
  EXPECT_THROWS(edited.load(), "and 1 more, got none");
}

TEST("weights: extra, misshapen and wrongly typed tensors are named") {
  {
    Edited edited("transformers");
    edited.tensors["audio_tower.conv1.weight"] = edited.tensors.at("model.norm.weight");
    EXPECT_THROWS(edited.load(),
                  "expected no other tensors than the model's, got audio_tower.conv1");
  }
  {
    Edited edited("transformers");
    edited.tensors.at("model.layers.1.mlp.up_proj.weight").shape = {32, 40};
    EXPECT_THROWS(edited.load(),
                  "[model.safetensors:model.layers.1.mlp.up_proj.weight] expected shape [40, 32], "
                  "got [32, 40]");
  }
  {
    Edited edited("original");
    edited.tensors.at("norm.weight").dtype = "F16";
    EXPECT_THROWS(edited.load(), "norm.weight] expected dtype F32 or BF16, got F16");
  }
  {
    Edited edited("original");  // a model of 9 codebooks
    edited.config.num_codebooks = 9;
    EXPECT_THROWS(edited.load(),
                  "audio_codebook_embeddings.weight] expected 288 rows (9 codebooks of 32 ids by "
                  "config.json), got [256, 48]");
  }
  {
    Edited edited("original");
    edited.tensors.at("audio_decoder_proj.text_lm_head.weight").shape = {150, 96};
    EXPECT_THROWS(edited.load(), "text_lm_head.weight] expected shape [300, 48], got [150, 96]");
  }
}

TEST("weights: ignored names, an absent text head and duplicate heads are accepted") {
  Edited edited("transformers");
  edited.tensors["model.rotary_emb.inv_freq"] = edited.tensors.at("model.norm.weight");
  edited.tensors["audio_codebook_weights"] = edited.tensors.at("model.norm.weight");
  edited.tensors["audio_decoder_proj.audio_lm_head.weight"] =
      edited.tensors.at("audio_lm_head.weight");
  const std::int64_t with_head = edited.load().num_parameters;
  edited.tensors.erase("text_lm_head.weight");
  EXPECT_EQ(edited.load().num_parameters, with_head - 300 * 32);
}

TEST("weights: halves of training checkpoints are joined, frozen first") {
  Edited edited("original");
  const StoredTensor embedding = edited.tensors.at("embed_tokens.weight");
  const std::string head_name = "audio_decoder_proj.audio_lm_head";
  const StoredTensor head = edited.tensors.at(head_name + ".weight");
  edited.add_part("embed_tokens.weight", "embed_tokens.embedding_frozen.weight", 0, 290);
  edited.add_part("embed_tokens.weight", "embed_tokens.embedding_trainable.weight", 290, 300);
  edited.add_part(head_name + ".weight", head_name + ".linear_frozen.weight", 0, 100);
  edited.add_part(head_name + ".weight", head_name + ".linear_trainable.weight", 100, 256);
  edited.tensors.erase("embed_tokens.weight");
  edited.tensors.erase(head_name + ".weight");
  const ModelWeights weights = edited.load();
  EXPECT(same_bytes(weights.embed_tokens, embedding));
  EXPECT(same_bytes(weights.audio_head, head));
  edited.tensors.erase("embed_tokens.embedding_trainable.weight");
  EXPECT_THROWS(edited.load(), "expected tensor embed_tokens.embedding_trainable.weight, got none");
}

TEST("weights: element types may differ from tensor to tensor") {
  Edited edited("original");
  StoredTensor& norm = edited.tensors.at("norm.weight");
  norm.dtype = "F32";
  norm.bytes.assign(48 * 4, '\0');
  EXPECT_EQ(edited.load().dtype, "mixed");
}

namespace {

// Host memory that claims to be a GPU's.
class PretendedGpu final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return "pretended"; }
  std::shared_ptr<void> allocate(std::size_t bytes) override { return host_->allocate(bytes); }
  void copy_from_host(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void synchronize() override {}

 private:
  std::unique_ptr<Device> host_ = make_cpu_device();
};

}  // namespace

TEST("weights: on a GPU, products of one input are one matrix of one element type") {
  Edited edited("original");
  edited.device = std::make_unique<PretendedGpu>();
  const StoredTensor down = edited.tensors.at("layers.1.mlp.down_proj.weight");
  const StoredTensor v = edited.tensors.at("layers.1.self_attn.v_proj.weight");
  for (const bool widened : {false, true}) {
    if (widened) {  // one fp32 weight makes all of them fp32
      StoredTensor& q = edited.tensors.at("layers.0.self_attn.q_proj.weight");
      q.dtype = "F32";
      q.bytes.append(q.bytes);
    }
    const ModelWeights weights = edited.load();
    const DType dtype = widened ? DType::kF32 : DType::kBF16;
    EXPECT(weights.linear_dtype == dtype);
    EXPECT(weights.audio_head.dtype == dtype);
    EXPECT(weights.norm.dtype == DType::kBF16);
    EXPECT_EQ(weights.dtype, widened ? "mixed" : "bf16");
    const LayerWeights& layer = weights.layers[1];
    const auto follows = [](const TensorView& a, const TensorView& b) {
      return static_cast<char*>(a.data) + a.bytes() == b.data;
    };
    EXPECT(follows(layer.q, layer.k) && follows(layer.k, layer.v));
    EXPECT(follows(layer.text.ffn.gate, layer.text.ffn.up));
    EXPECT(follows(layer.audio.ffn.gate, layer.audio.ffn.up));
    const auto* stored = reinterpret_cast<const BF16*>(v.bytes.data());
    for (std::int64_t i = 0; i < layer.v.size(); ++i) {
      const float value = widened ? layer.v.as<float>()[i] : to_float(layer.v.as<BF16>()[i]);
      EXPECT_EQ(value, to_float(stored[i]));
    }
    EXPECT(layer.text.ffn.down.dtype == dtype);
    EXPECT(widened || same_bytes(layer.text.ffn.down, down));
  }
}
