#include "model/config.h"

#include <algorithm>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

// The transformers layout's max_position_embeddings is only informative (specification 1.1): its
// converted release says 2048. The limit is then the one of the original release.
constexpr std::int32_t kReleasedPositions = 131072;

// Reads both forms: one object rope_parameters, or rope_theta beside rope_scaling.
RopeConfig read_rope(const JsonObject& model) {
  const bool joined = model.has("rope_parameters");
  RopeConfig rope;
  rope.theta = (joined ? model.object("rope_parameters") : model).number("rope_theta");
  if (!(rope.theta > 1)) model.refuse("rope_theta", "a number > 1");
  const char* name = joined ? "rope_parameters" : "rope_scaling";
  if (!model.has(name)) return rope;
  const JsonObject scaling = model.object(name);
  if (scaling.number("partial_rotary_factor", 1.0) != 1.0) {
    scaling.refuse("partial_rotary_factor", "1");
  }
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  if (type == "default") return rope;
  if (type != "llama3") scaling.refuse("rope_type", "\"llama3\" or \"default\"");
  rope.scaled = true;
  rope.factor = scaling.number("factor");
  rope.low_freq_factor = scaling.number("low_freq_factor");
  rope.high_freq_factor = scaling.number("high_freq_factor");
  rope.original_positions = scaling.number("original_max_position_embeddings");
  if (!(rope.factor >= 1)) scaling.refuse("factor", "a number >= 1");
  if (!(rope.low_freq_factor > 0)) scaling.refuse("low_freq_factor", "a number > 0");
  if (!(rope.high_freq_factor > rope.low_freq_factor)) {
    scaling.refuse("high_freq_factor", "a number above low_freq_factor");
  }
  if (!(rope.original_positions > 0)) {
    scaling.refuse("original_max_position_embeddings", "a number > 0");
  }
  return rope;
}

// What both layouts share with a Llama configuration.
void read_backbone(const JsonObject& model, ModelConfig& config) {
  config.text_vocab = model.positive("vocab_size");
  config.hidden_size = model.positive("hidden_size");
  config.text_ffn = model.positive("intermediate_size");
  config.num_layers = model.positive("num_hidden_layers");
  config.num_heads = model.positive("num_attention_heads");
  config.num_kv_heads = model.positive("num_key_value_heads", config.num_heads);
  config.head_dim = model.positive("head_dim", std::max(config.hidden_size / config.num_heads, 1));
  config.max_positions = model.positive("max_position_embeddings");
  config.rms_norm_eps = static_cast<float>(model.number("rms_norm_eps"));
  config.rope = read_rope(model);
  model.require_text("hidden_act", "silu");
  model.require_flag("attention_bias", false);
  model.require_flag("mlp_bias", false);
  if (config.num_heads % config.num_kv_heads != 0) {
    model.refuse("num_key_value_heads", "a divisor of num_attention_heads");
  }
  if (config.head_dim % 2 != 0) model.refuse("head_dim", "an even number");
  if (!(config.rms_norm_eps > 0)) model.refuse("rms_norm_eps", "a number > 0");
}

// BOS and EOS must be the last two ids of a codebook.
void check_stream_ids(const JsonObject& root, const ModelConfig& config) {
  const std::int32_t bos = config.codebook_vocab - 2;
  if (root.integer("audio_stream_bos_id", bos) != bos) {
    root.refuse("audio_stream_bos_id", std::to_string(bos) + " (after the codes)");
  }
  if (root.integer("audio_stream_eos_id", bos + 1) != bos + 1) {
    root.refuse("audio_stream_eos_id", std::to_string(bos + 1) + " (after the codes)");
  }
}

void read_original(const JsonObject& root, ModelConfig& config) {
  config.layout = Layout::kOriginal;
  read_backbone(root.object("text_config"), config);
  if (root.text("audio_adapter_type") != "dual_ffn_fast_forward" &&
      root.text("audio_adapter_type") != "dual_ffn") {
    root.refuse("audio_adapter_type", "\"dual_ffn_fast_forward\" or \"dual_ffn\"");
  }
  const auto layers = root.integers("audio_dual_ffn_layers");
  for (std::int32_t i = 0; i < config.num_layers; ++i) {
    if (std::count(layers.begin(), layers.end(), i) != 1) {
      root.refuse("audio_dual_ffn_layers",
                  "every layer 0.." + std::to_string(config.num_layers - 1) + " once (layer " +
                      std::to_string(i) + " is not; fast-forwarded layers are not supported)");
    }
  }
  if (static_cast<std::int32_t>(layers.size()) != config.num_layers) {
    root.refuse("audio_dual_ffn_layers", "only layers that exist");
  }
  if (root.positive("audio_ffn_hidden_size") != config.hidden_size) {
    root.refuse("audio_ffn_hidden_size", std::to_string(config.hidden_size));
  }
  config.audio_ffn = root.positive("audio_ffn_intermediate_size");
  config.num_codebooks = root.positive("audio_num_codebooks");
  config.codebook_vocab = root.positive("audio_codebook_size") + 2;
  check_stream_ids(root, config);
  if (!root.boolean("use_delay_pattern", false)) root.refuse("use_delay_pattern", "true");
  if (root.boolean("encode_whisper_embed", true)) {
    root.refuse("encode_whisper_embed", "false (there is no Whisper tower here)");
  }
  root.require_flag("audio_embed_avg", false);
  root.require_flag("use_rq_transformer", false);
  root.require_flag("use_audio_out_self_attention", false);
  root.require_flag("use_audio_out_embed_projector", false);
  if (root.integer("audio_decoder_proj_num_layers", 0) != 0) {
    root.refuse("audio_decoder_proj_num_layers", "0");
  }
}

void read_transformers(const JsonObject& root, ModelConfig& config) {
  config.layout = Layout::kTransformers;
  read_backbone(root, config);
  config.max_positions = std::max(config.max_positions, kReleasedPositions);
  config.audio_ffn = config.text_ffn;
  config.num_codebooks = root.positive("num_codebooks");
  config.codebook_vocab = root.positive("codebook_size");
  if (config.codebook_vocab < 3) root.refuse("codebook_size", "at least 3 (BOS and EOS included)");
  check_stream_ids(root, config);
}

}  // namespace

const char* name_of(Layout layout) {
  return layout == Layout::kOriginal ? "original" : "transformers";
}

ModelConfig read_model_config(const std::string& directory) {
  const JsonObject root = JsonObject::read(directory + "/config.json");
  ModelConfig config;
  const std::string type = root.text("model_type", "");
  if (type == "higgs_audio") {
    read_original(root, config);
  } else if (type == "higgs_audio_v2") {
    read_transformers(root, config);
  } else {
    root.refuse("model_type", "\"higgs_audio_v2\" or \"higgs_audio\"");
  }
  return config;
}

}  // namespace higgs_rt
