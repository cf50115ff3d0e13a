// What an engine is to the executor: limits and one step.
#pragma once

#include <cstdint>
#include <string>

#include "batch/step_batch.h"
#include "core/device.h"
#include "kv/kv_layout.h"

namespace higgs_rt {

struct EngineSpec {
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;  // codes + BOS + EOS; BOS = codebook_vocab - 2, EOS = - 1
  std::int32_t text_vocab = 0;
  std::int32_t hidden_size = 0;
  std::int32_t max_rows = 0;       // rows of one step
  std::int32_t max_sequences = 0;  // sequences of one step
  std::int32_t max_positions = 0;  // positions of one sequence
  KvLayout kv;
};

// Owns the KV storage; the executor owns the accounting of blocks. One thread drives an engine.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineSpec& spec() const = 0;
  virtual Device& device() = 0;
  // Enqueues one step and returns. Reads `batch` before it returns. Throws Error when the batch
  // exceeds the spec; the KV cache is then unchanged.
  virtual void forward(const StepBatch& batch, StepOutput& output) = 0;
};

}  // namespace higgs_rt
