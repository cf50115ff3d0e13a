// A small random model with codec, and requests to it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/random_checkpoint.h"
#include "higgs_rt/runtime.h"

namespace higgs_rt::testing {

// Directory of a model whose streams end by length only, or by themselves; made once, removed at
// exit. It has a codec in codec/.
const std::string& endless_model();
const std::string& ending_model();

RuntimeConfig small_config(const std::string& model_dir);

// A prompt of `ids` text ids; waveform, sampled at temperature 1.
Request speech_request(std::int32_t max_columns, std::uint64_t seed, bool stream);

struct Answer {
  std::vector<float> pcm;
  std::vector<std::vector<std::int32_t>> frames;  // [num_frames][num_codebooks]
  std::vector<std::int32_t> columns;
  std::vector<std::int32_t> chunk_frames;  // frames of each chunk
  FinishReason finish = FinishReason::kNone;
  std::string error;

  void add(const Chunk& chunk);
};

// Reads a stream to its end.
Answer read(Stream stream);

}  // namespace higgs_rt::testing
