// Dimensions of the codec's decode path, from config.json of either layout (specification 1.3).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/config.h"

namespace higgs_rt {

struct CodecConfig {
  Layout layout = Layout::kTransformers;
  std::int32_t sample_rate = 0;
  std::int32_t codebook_size = 0;
  std::int32_t codebook_dim = 0;
  std::int32_t num_codebooks = 0;    // counted from the tensors: published files disagree
  std::int32_t latent = 0;           // channels into the acoustic decoder
  std::int32_t fused = 0;            // channels of the quantised embedding, from the tensors
  std::int32_t decoder_hidden = 0;   // channels after the first convolution; halved by each block
  std::vector<std::int32_t> ratios;  // upsampling of each block
};

// Reads <directory>/config.json. Throws Error that names the field or tensor.
CodecConfig read_codec_config(const Checkpoint& checkpoint);

// The original layout's name of a decode tensor with transformers name `name` (specification 2.2).
std::string original_codec_name(const std::string& name, std::int32_t num_blocks);

}  // namespace higgs_rt
