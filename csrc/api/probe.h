// Teacher-forced logits of an engine, for parity tests and verification of plans.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "higgs_rt/types.h"

namespace higgs_rt {

class Probe {
 public:
  // Loads the engine that Runtime::load would use; no codec. Throws Error likewise.
  explicit Probe(const RuntimeConfig& config);
  ~Probe();

  const ModelInfo& info() const;

  // Runs `prompt`, then `columns` [num_columns, num_codebooks] as they are (the all-BOS column
  // first). Returns fp32 logits [num_columns, num_codebooks, codebook_vocab]: those at every given
  // column. `adapter`: as Request::adapter. `chunk_rows` splits the run into steps of at most that
  // many rows; 0: as many as the engine takes. Throws kInvalidArgument that names the field, the
  // value and the limit. One call at a time.
  std::vector<float> logits(const std::vector<PromptSegment>& prompt,
                            std::span<const std::int32_t> columns, std::int32_t chunk_rows,
                            const std::string& adapter = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Codes [num_codebooks, T] as columns [T + num_codebooks + 1, num_codebooks] with BOS and EOS
// (specification 5). Throws kInvalidArgument that names a bad code and its place.
std::vector<std::int32_t> delayed_columns(std::span<const std::int32_t> codes,
                                          std::int32_t num_codebooks, std::int32_t codebook_size);

}  // namespace higgs_rt
