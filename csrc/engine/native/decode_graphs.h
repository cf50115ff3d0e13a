// Decode steps as graphs: one recording per number of rows.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/native/step_staging.h"
#include "model/decoder.h"

namespace higgs_rt {

// A decode step (StepBatch::decode) has one audio row per sequence, most of them the column that
// the sampler wrote last; the host gives those that are computed again. Steps of 1, 2, 4, 8, 16,
// 24, … rows are recorded (finer than powers of two, as rows that are padding cost what others
// cost), from those columns to the tail's work; a step of another size is padded to the next one
// with rows that go to a scratch block and belong to no sampler row. Everything that changes from
// step to step is in the staged arrays.
class DecodeGraphs {
 public:
  // Runs the decoder over a staged batch and the tail behind it; returns the logits.
  using Forward =
      std::function<const float*(const DecoderBatch& batch, const TensorView& sampler_rows)>;

  // Rows of the largest recording for steps of up to `max_sequences` sequences.
  static std::int32_t largest(std::int32_t max_sequences);
  // Words that `rows` rows need in the staging.
  static std::int64_t staged_words(std::int32_t rows, std::int32_t max_blocks,
                                   std::int32_t num_codebooks);

  // Runs every recording's step once, of padding alone, and records it. `scratch_block` belongs to
  // no sequence; `max_blocks` is the most that a sequence may have. The device must be idle.
  DecodeGraphs(const EngineSpec& spec, std::int32_t max_blocks, std::int32_t scratch_block,
               const StepTail& tail, StepStaging& staging, Device& device, Forward forward);

  // Enqueues a decode step that has passed check_batch() and check_tail(); returns its logits.
  const float* run(const StepBatch& batch);

 private:
  struct Recording {
    std::int32_t rows = 0;
    std::unique_ptr<DeviceGraph> graph;
    const float* logits = nullptr;
  };
  struct Staged {
    DecoderBatch batch;
    TensorView sampler_rows;  // [rows] i32
  };
  Staged stage(const StepBatch& batch, std::int32_t rows);
  void record(std::int32_t rows);

  std::int32_t num_codebooks_;
  bool has_adapters_;
  std::int32_t block_tokens_;
  std::int32_t max_blocks_;
  std::int32_t scratch_block_;
  const std::int32_t* last_columns_;
  std::int32_t sampler_rows_;
  StepStaging& staging_;
  Device& device_;
  Forward forward_;
  std::vector<Recording> recordings_;
};

}  // namespace higgs_rt
