// Dimensions of the language model, from config.json of either layout (specification 1.1).
#pragma once

#include <cstdint>
#include <string>

namespace higgs_rt {

struct RopeConfig {
  double theta = 0;
  // llama3 scaling (specification 3.4); without it the base frequencies are used as they are.
  bool scaled = false;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  double original_positions = 0;
};

enum class Layout { kOriginal, kTransformers };
const char* name_of(Layout layout);

struct ModelConfig {
  Layout layout = Layout::kTransformers;
  std::int32_t text_vocab = 0;
  std::int32_t hidden_size = 0;
  std::int32_t text_ffn = 0;
  std::int32_t audio_ffn = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  float rms_norm_eps = 0;
  RopeConfig rope;
  // Positions that the model was made for.
  std::int32_t max_positions = 0;
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;  // codes + BOS + EOS; BOS = codebook_vocab - 2, EOS = - 1
};

// Reads <directory>/config.json. Throws Error that names the field: missing, out of range, or
// asking for a part that this runtime does not have (other audio adapters, a Whisper tower, …).
ModelConfig read_model_config(const std::string& directory);

}  // namespace higgs_rt
