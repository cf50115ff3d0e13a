// The data that crosses executor -> engine -> sampler in one step.
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt {

// One engine step over a ragged set of positions ("rows").
//
// Rows are ordered text first, audio after: rows [0, num_text_rows) take the text norms and FFN,
// rows [num_text_rows, num_rows()) the audio ones, so DualFFN routing is two contiguous ranges.
// A prompt-table row takes the text path (specification 3.2). Within each range the rows of one
// sequence are contiguous with ascending positions. Prompt chunks and decode positions share one
// path, but for engines that want them in steps of their own (EngineSpec::separate_decode).
struct StepBatch {
  std::int32_t num_text_rows = 0;
  // A step of decode rows: each is a column and the only row of its sequence, row i of sequence i.
  // Those whose logits are wanted come first. Set for engines with separate_decode only.
  bool decode = false;

  // Per row, [num_rows].
  // Text row: token id in [0, text_vocab), or text_vocab + r for row r of `table_rows`.
  // Audio row: index of its column in `columns`, or kFeedback + sampler row: the column that the
  // sampler wrote last for that row and that never left the device.
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> sequence;  // index into the per-sequence arrays below
  std::vector<std::int32_t> position;  // 0-based position in the sequence
  std::vector<std::int32_t> slot;      // KV slot that this row's key and value are written to

  // Columns given by the host, [n, num_codebooks].
  std::vector<std::int32_t> columns;
  // Prompt-table rows of this step, [n, hidden_size].
  std::vector<float> table_rows;

  // Per sequence. Position p of sequence s is in KV slot
  // block_table[s * max_blocks + p / block_tokens] * block_tokens + p % block_tokens.
  std::int32_t num_sequences = 0;
  std::int32_t max_blocks = 0;
  std::vector<std::int32_t> block_table;     // [num_sequences, max_blocks]; unused entries -1
  std::vector<std::int32_t> context_length;  // [num_sequences]: positions valid after this step
  // [num_sequences]: index of the sequence's adapter, -1: none; or empty: none has one.
  std::vector<std::int32_t> adapter;
  // First row of each sequence inside the text range and inside the audio range, [num_sequences +
  // 1] each, the last entry the end of the range. Sequence s owns rows [text_offset[s],
  // text_offset[s+1]) and [audio_offset[s], audio_offset[s+1]), so sequences are in the same order
  // in both ranges.
  std::vector<std::int32_t> text_offset;
  std::vector<std::int32_t> audio_offset;

  // Rows whose audio logits are wanted, in the order in which the logits are written.
  std::vector<std::int32_t> logit_rows;
  // Sampler row that takes the logits of logit_rows[i].
  std::vector<std::int32_t> sampler_rows;

  static constexpr std::int32_t kFeedback = 1 << 30;

  std::int32_t num_rows() const { return static_cast<std::int32_t>(ids.size()); }
  std::int32_t num_audio_rows() const { return num_rows() - num_text_rows; }
  void clear();
};

// Where the engine finds device-resident inputs and leaves its result.
struct StepOutput {
  // Set by the sampler: last column of every sampler row, [sampler rows, num_codebooks] int32 in
  // device memory.
  const std::int32_t* last_columns = nullptr;
  // Set by the engine: logits [logit_rows, num_codebooks, codebook_vocab] fp32 in device memory,
  // valid until the next forward().
  const float* logits = nullptr;
  // Set by the engine: it has enqueued the sampler's work as well (StepTail of engine.h).
  bool sampled = false;
  // Set by the engine: the whole step was launched as one graph.
  bool one_launch = false;
};

}  // namespace higgs_rt
