#include "model/weights.h"

#include "core/check.h"
#include "model/weight_loader.h"

namespace higgs_rt {

namespace {

// A factor of a matrix product that the runtime computes.
bool is_linear(const std::string& name) {
  return name.ends_with("_proj.weight") || name.find("audio_lm_head.") != std::string::npos;
}

// bf16 when every linear weight is.
DType linear_dtype_of(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    if (!is_linear(name)) continue;
    if (checkpoint.tensor(name, checkpoint.shape(name)).dtype != DType::kBF16) return DType::kF32;
  }
  return DType::kBF16;
}

PathWeights load_path(WeightLoader& loader, const std::string& layer, const std::string& modality,
                      std::int64_t hidden, std::int64_t ffn) {
  PathWeights path;
  path.input_norm = loader.backbone(layer + modality + "input_layernorm", {hidden});
  path.post_attention_norm =
      loader.backbone(layer + modality + "post_attention_layernorm", {hidden});
  loader.linear_group({{layer + modality + "mlp.gate_proj", ffn, &path.ffn.gate},
                       {layer + modality + "mlp.up_proj", ffn, &path.ffn.up}},
                      hidden);
  path.ffn.down = loader.linear(layer + modality + "mlp.down_proj", hidden, ffn);
  return path;
}

LayerWeights load_layer(WeightLoader& loader, const ModelConfig& config, std::int32_t index) {
  const std::string name = "layers." + std::to_string(index) + ".";
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t q_dim = std::int64_t{config.num_heads} * config.head_dim;
  const std::int64_t kv_dim = std::int64_t{config.num_kv_heads} * config.head_dim;
  LayerWeights layer;
  loader.linear_group({{name + "self_attn.q_proj", q_dim, &layer.q},
                       {name + "self_attn.k_proj", kv_dim, &layer.k},
                       {name + "self_attn.v_proj", kv_dim, &layer.v}},
                      hidden);
  layer.o = loader.linear(name + "self_attn.o_proj", hidden, q_dim);
  layer.text = load_path(loader, name, "", hidden, config.text_ffn);
  layer.audio = load_path(loader, name, "audio_", hidden, config.audio_ffn);
  return layer;
}

// The usual sign of a configuration that belongs to another checkpoint.
void check_codebooks(const ModelConfig& config, const Checkpoint& checkpoint,
                     const std::string& table) {
  if (!checkpoint.contains(table)) return;  // named with everything else that is missing
  const Shape& shape = checkpoint.shape(table);
  const std::int64_t rows = std::int64_t{config.num_codebooks} * config.codebook_vocab;
  check(!shape.empty() && shape[0] == rows, checkpoint.place(table).c_str(), "expected ", rows,
        " rows (", config.num_codebooks, " codebooks of ", config.codebook_vocab,
        " ids by config.json), got ", to_string(shape));
}

}  // namespace

ModelWeights load_weights(const ModelConfig& config, std::shared_ptr<const Checkpoint> checkpoint,
                          Device& device, Adapter* adapter) {
  ModelWeights weights;
  weights.checkpoint = std::move(checkpoint);
  weights.linear_dtype = linear_dtype_of(*weights.checkpoint);
  WeightLoader loader(config, *weights.checkpoint, device, weights, adapter);
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t audio_rows = std::int64_t{config.num_codebooks} * config.codebook_vocab;
  weights.embed_tokens = loader.embedding("embed_tokens", {config.text_vocab, hidden});
  const bool original = config.layout == Layout::kOriginal;
  const std::string columns =
      original ? "audio_codebook_embeddings" : "embed_audio_tokens.embed_audio_tokens";
  check_codebooks(config, *weights.checkpoint, (original ? "" : "model.") + columns + ".weight");
  weights.embed_columns = loader.backbone(columns, {audio_rows, hidden});
  for (std::int32_t i = 0; i < config.num_layers; ++i) {
    weights.layers.push_back(load_layer(loader, config, i));
  }
  weights.norm = loader.backbone("norm", {hidden});
  weights.audio_head = loader.head("audio_lm_head", {audio_rows, hidden});
  loader.optional_head("text_lm_head", {config.text_vocab, hidden});
  loader.finish();
  return weights;
}

}  // namespace higgs_rt
