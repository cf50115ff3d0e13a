// The codec's decode tensors, folded and on the device, all fp32 (specification 2.2 and 8.1).
#pragma once

#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "io/checkpoint.h"
#include "model/codec_config.h"

namespace higgs_rt {

struct ConvWeights {
  Tensor weight;  // [O, C, K], transposed [C, O, K] or packed (Ops); weight norm folded
  Tensor bias;    // [O]
};

struct ResidualUnitWeights {
  Tensor snake1;      // [C]
  ConvWeights conv1;  // kernel 7, dilated
  Tensor snake2;      // [C]
  ConvWeights conv2;  // kernel 1
};

struct CodecBlockWeights {
  Tensor snake;  // [C]
  ConvWeights upsample;
  std::vector<ResidualUnitWeights> units;
};

struct CodecWeights {
  // Quantiser, output projections and fc2 in one: a frame's latent is table_bias plus the rows of
  // its codes.
  Tensor tables;      // [num_codebooks, codebook_size, latent]
  Tensor table_bias;  // [latent]
  ConvWeights first;  // kernel 7
  std::vector<CodecBlockWeights> blocks;
  Tensor last_snake;
  ConvWeights last;  // kernel 7, one channel
};

inline constexpr std::int32_t kCodecDilations[] = {1, 3, 9};
inline constexpr std::int64_t kCodecKernel = 7;

// Throws kNotFound that names a missing tensor, kInvalidArgument for a shape or element type, or a
// tensor that no codec has.
CodecWeights load_codec_weights(const CodecConfig& config, const Checkpoint& checkpoint,
                                Device& device);

}  // namespace higgs_rt
