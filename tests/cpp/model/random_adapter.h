// Random LoRA adapters for a model, as peft stores them.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/edited_checkpoint.h"

namespace higgs_rt::testing {

inline StoredTensor stored_floats(const Shape& shape, const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {"F32", shape, bytes};
}

// Adapts everything that can be adapted in the model's layers, strongly enough to show in its
// logits. `extra`: further tensors.
class RandomAdapter {
 public:
  RandomAdapter(const std::string& model_dir, std::int32_t rank, unsigned seed,
                const StoredTensors& extra = {})
      : rank_(rank), random_(seed), tensors_(extra) {
    const ModelConfig config = read_model_config(model_dir);
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t q = std::int64_t{config.num_heads} * config.head_dim;
    const std::int64_t kv = std::int64_t{config.num_kv_heads} * config.head_dim;
    for (std::int32_t i = 0; i < config.num_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      add(layer + "self_attn.q_proj", q, hidden);
      add(layer + "self_attn.k_proj", kv, hidden);
      add(layer + "self_attn.v_proj", kv, hidden);
      add(layer + "self_attn.o_proj", hidden, q);
      add_ffn(layer + "mlp.", config.text_ffn, hidden);
      add_ffn(layer + "audio_mlp.", config.audio_ffn, hidden);
    }
    write_tensors(*directory_, tensors_);
    directory_->write("adapter_config.json", R"({"peft_type": "LORA", "lora_alpha": 8, "r": )" +
                                                 std::to_string(rank) + "}");
  }

  const std::string& path() const { return directory_->path(); }

 private:
  void add_ffn(const std::string& name, std::int64_t width, std::int64_t hidden) {
    add(name + "gate_proj", width, hidden);
    add(name + "up_proj", width, hidden);
    add(name + "down_proj", hidden, width);
  }

  void add(const std::string& module, std::int64_t outputs, std::int64_t inputs) {
    const std::string name = "base_model.model." + module;
    tensors_[name + ".lora_A.weight"] = uniform({rank_, inputs}, inputs);
    tensors_[name + ".lora_B.weight"] = uniform({outputs, rank_}, rank_);
  }

  StoredTensor uniform(const Shape& shape, std::int64_t inputs) {
    const float reach = 0.5f / std::sqrt(static_cast<float>(inputs));
    std::uniform_real_distribution<float> numbers(-reach, reach);
    std::vector<float> values(static_cast<std::size_t>(num_elements(shape)));
    for (float& value : values) value = numbers(random_);
    return stored_floats(shape, values);
  }

  std::int64_t rank_;
  std::mt19937 random_;
  StoredTensors tensors_;
  std::unique_ptr<TemporaryDirectory> directory_ = std::make_unique<TemporaryDirectory>();
};

}  // namespace higgs_rt::testing
