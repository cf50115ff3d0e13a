// Random checkpoints of any size, written fast: for benchmarks and tests.
#pragma once

#include <cstdint>
#include <string>

#include "core/dtype.h"

namespace higgs_rt {

struct RandomLmShape {
  std::int32_t hidden = 64;
  std::int32_t layers = 2;
  std::int32_t heads = 4;
  std::int32_t kv_heads = 2;
  std::int32_t head_dim = 16;
  std::int32_t ffn = 96;
  std::int32_t vocab = 320;
  std::int32_t codebook_size = 30;  // without BOS and EOS
  std::int32_t num_codebooks = 8;
  // Zero BOS and EOS rows in the head: greedy streams, and streams with a small top_k and without
  // RAS, never end and have a frame in every column.
  bool endless = false;
};

// The released dimensions (specification 1.1) and those of the packaged demo voice.
RandomLmShape released_lm_shape();
RandomLmShape demo_lm_shape();

struct RandomCodecShape {
  std::int32_t decoder_hidden = 32;
  std::int32_t latent = 16;
  std::int32_t fused = 24;
  std::int32_t codebook_size = 30;
  std::int32_t codebook_dim = 8;
  std::int32_t num_codebooks = 8;
};
RandomCodecShape released_codec_shape();
RandomCodecShape demo_codec_shape();

// Write config.json and model.safetensors in the transformers layout; the codec has the tensors of
// the decode path only. Weights are uniform and scaled so that activations stay of order one; large
// tensors repeat a block of numbers. `dtype` is fp32 or bf16; a codec is fp32. Throw Error when the
// directory cannot be written.
void write_random_lm(const std::string& directory, const RandomLmShape& shape, DType dtype,
                     std::uint64_t seed);
void write_random_codec(const std::string& directory, const RandomCodecShape& shape,
                        std::uint64_t seed);

}  // namespace higgs_rt
