// Splits a step into calls of the plan (docs/tensorrt.md, decoder bindings). No device, no plan:
// plain data from plain data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "batch/step_batch.h"
#include "engine/engine.h"

namespace higgs_rt {

// Inputs of one call: `slots` KV slots from `first_slot` with `positions` new positions each. The
// fields are the bindings of the same names. Flat row r: text row r, or audio row r - text_ids.
struct PlanCall {
  std::int32_t first_slot = 0;
  std::int32_t slots = 0;
  std::int32_t positions = 0;
  std::vector<std::int32_t> text_ids;
  std::vector<std::int32_t> audio_ids;
  std::vector<std::int32_t> columns;      // [n, num_codebooks]
  std::vector<float> table_rows;          // [n, hidden_size]
  std::vector<std::int32_t> row_index;    // [slots, positions]
  std::vector<std::int32_t> position;     // [slots, positions]
  std::vector<std::int32_t> text_place;   // [text rows]
  std::vector<std::int32_t> audio_place;  // [audio rows]
  std::vector<std::int32_t> write_index;  // [slots]
  std::vector<std::int32_t> kv_length;    // [slots]
  std::vector<std::int32_t> logit_rows;   // flat rows; never empty
  // Logit row i of the call is entry wanted[i] of StepBatch::logit_rows; those after it are
  // padding.
  std::vector<std::int32_t> wanted;
  void clear();
};

struct CallLimits {
  std::int32_t max_prefill = 0;       // positions of a prefill call
  std::int32_t max_prompt_table = 0;  // prompt-table rows of a prefill call
  std::int32_t max_sampler_rows = 0;
  // Numbers of slots that decode calls come in, ascending; the last is the number of slots.
  std::vector<std::int32_t> buckets;
};

// Sequences that add a single column share one call over slots [0, bucket): slots without a row in
// it are padded. Every other sequence is run alone, in pieces that keep the limits. Nothing is
// allocated any more once the largest step has been seen.
class StepCalls {
 public:
  StepCalls(const EngineSpec& spec, CallLimits limits);

  // `batch` has passed check_batch(). `valid`: positions in every slot before the step. Throws
  // kInvalidArgument when the positions of a sequence have a gap or two sequences share a slot.
  void split(const StepBatch& batch, std::span<const std::int32_t> valid);

  // A decode call of padding alone. What slots hold stays.
  PlanCall padding(std::int32_t slots, std::span<const std::int32_t> valid) const;

  // Null when the step has no such call. It is run before the others.
  const PlanCall* decode() const { return decode_.slots == 0 ? nullptr : &decode_; }
  std::span<const PlanCall> prefills() const { return {prefills_.data(), num_prefills_}; }
  // Most prefill calls of a step that have wanted logits.
  std::int64_t max_wanted_calls() const;

 private:
  // Where a row of the step went. `call` counts prefills; -1 is the decode call.
  struct Place {
    std::int32_t call = -1;
    std::int32_t flat = 0;
  };
  struct Rows {
    std::int32_t text, text_end, audio, audio_end;
    std::int32_t count() const { return text_end - text + audio_end - audio; }
  };

  void check_sequences();
  void fill_padding(PlanCall& call, std::int32_t slots, std::span<const std::int32_t> valid) const;
  void add_decode(std::span<const std::int32_t> valid);
  void add_decode_row(std::int32_t row, std::int32_t slot);
  void add_prefill(std::int32_t slot, Rows rows);
  Rows add_piece(std::int32_t slot, Rows rows);
  void fill_piece(PlanCall& call, Rows& rows);
  bool is_table_row(std::int32_t row) const;
  void add_text_row(PlanCall& call, std::int32_t row);
  std::int32_t local_audio_id(PlanCall& call, std::int32_t row);
  void add_logit_rows();
  std::int32_t position_of(std::int32_t row) const;
  bool audio_is_next(const Rows& rows) const;
  Rows rows_of(std::int32_t sequence) const;
  std::int32_t slot_of(std::int32_t sequence) const;
  bool is_decode(std::int32_t sequence) const;
  PlanCall& next_prefill();

  const EngineSpec spec_;
  const CallLimits limits_;
  const StepBatch* batch_ = nullptr;
  PlanCall decode_;
  std::vector<PlanCall> prefills_;
  std::size_t num_prefills_ = 0;
  std::vector<Place> places_;        // [rows of the step]
  std::vector<std::int32_t> owner_;  // [slots]: sequence of the step, -1 none
};

}  // namespace higgs_rt
