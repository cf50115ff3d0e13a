#include "executor/request_check.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "sampler/sampler.h"

namespace higgs_rt {
namespace {

constexpr const char* kSubmit = "submit";

void check_ids(const std::vector<std::int32_t>& ids, std::int32_t limit, const std::string& name) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check(ids[i] >= 0 && ids[i] < limit, kSubmit, name, ".ids[", i, "]: expected 0..", limit - 1,
          ", got ", ids[i]);
  }
}

void check_axis(const PromptSegment& segment, const char* field, std::int32_t expected,
                const std::string& name) {
  check(segment.model_axis == 0 || segment.model_axis == expected, kSubmit, name,
        ".model_axis: expected ", field, " ", expected, " (or 0, unchecked), got ",
        segment.model_axis);
}

// Positions of an audio segment: T frames become T + num_codebooks + 1 columns (specification 4.5).
std::int64_t check_audio(const PromptSegment& segment, const EngineSpec& spec,
                         const std::string& name) {
  const auto count = segment.ids.size();
  const auto codebooks = static_cast<std::size_t>(spec.num_codebooks);
  check_axis(segment, "num_codebooks", spec.num_codebooks, name);
  check(count > 0 && count % codebooks == 0, kSubmit, name,
        ".ids: expected codes of whole frames, a positive multiple of num_codebooks ", codebooks,
        ", got ", count);
  check_ids(segment.ids, spec.codebook_vocab - 2, name);
  return static_cast<std::int64_t>(count / codebooks) + spec.num_codebooks + 1;
}

std::int64_t check_table(const PromptSegment& segment, const EngineSpec& spec,
                         const std::string& name) {
  const auto count = segment.rows.size();
  const auto width = static_cast<std::size_t>(spec.hidden_size);
  check_axis(segment, "hidden_size", spec.hidden_size, name);
  check(count > 0 && count % width == 0, kSubmit, name,
        ".rows: expected a positive multiple of hidden_size ", width, ", got ", count);
  for (std::size_t i = 0; i < count; ++i) {
    check(std::isfinite(segment.rows[i]), kSubmit, name, ".rows[", i,
          "]: expected a finite number, got ", segment.rows[i]);
    check(std::abs(segment.rows[i]) <= spec.largest_table_value, kSubmit, name, ".rows[", i,
          "]: expected a number in -", spec.largest_table_value, "..", spec.largest_table_value,
          " (the engine's limit), got ", segment.rows[i]);
  }
  return static_cast<std::int64_t>(count / width);
}

std::int64_t check_segment(const PromptSegment& segment, const EngineSpec& spec,
                           const std::string& name) {
  const bool table = segment.kind == PromptSegment::Kind::kTable;
  check(!table || segment.ids.empty(), kSubmit, name,
        ".ids: expected none in a table segment, got ", segment.ids.size());
  check(table || segment.rows.empty(), kSubmit, name,
        ".rows: expected none in a text or audio segment, got ", segment.rows.size());
  switch (segment.kind) {
    case PromptSegment::Kind::kText:
      check(!segment.ids.empty(), kSubmit, name, ".ids: expected at least 1 text id, got 0");
      check_ids(segment.ids, spec.text_vocab, name);
      return static_cast<std::int64_t>(segment.ids.size());
    case PromptSegment::Kind::kAudio:
      return check_audio(segment, spec, name);
    case PromptSegment::Kind::kTable:
      return check_table(segment, spec, name);
  }
  fail(ErrorCode::kInvalidArgument, kSubmit, name,
       ".kind: expected text (0), audio (1) or table (2)", ", got ",
       static_cast<std::int32_t>(segment.kind));
}

// Number of prompt positions.
std::int64_t check_prompt(const std::vector<PromptSegment>& prompt, const EngineSpec& spec) {
  check(!prompt.empty(), kSubmit, "prompt: expected at least 1 segment, got 0");
  std::int64_t positions = 0;
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    positions += check_segment(prompt[i], spec, "prompt[" + std::to_string(i) + "]");
  }
  check(prompt.back().kind == PromptSegment::Kind::kText, kSubmit, "prompt[", prompt.size() - 1,
        "].kind: expected the last segment to be text (it ends with <|audio_out_bos|>), got ",
        prompt.back().kind == PromptSegment::Kind::kAudio ? "audio" : "table");
  return positions;
}

void check_limit(const char* name, std::int64_t value, std::int64_t low, std::int64_t high,
                 const char* high_name) {
  check(value >= low && value <= high, "executor", name, ": expected ", low, "..", high, " (",
        high_name, "), got ", value);
}

}  // namespace

void check_config(const ExecutorConfig& config, const EngineSpec& spec) {
  check(spec.num_codebooks >= 1 && spec.codebook_vocab >= 3 && spec.kv.block_tokens >= 1 &&
            spec.kv.num_blocks >= 1,
        "executor", "expected an engine with codebooks and KV blocks, got ", spec.num_codebooks,
        " codebooks of ", spec.codebook_vocab, " ids, ", spec.kv.num_blocks, " blocks of ",
        spec.kv.block_tokens, " positions");
  check_limit("max_batch", config.max_batch, 1, spec.max_sequences, "max_sequences of the engine");
  check_limit("max_queue", config.max_queue, 1, kMaxQueue, "largest queue");
  // Every running sequence may have a decode row, and one row more lets a prompt go on.
  check_limit("max_step_tokens", config.max_step_tokens, std::int64_t{config.max_batch} + 1,
              spec.max_rows, "max_batch + 1 .. max_rows of the engine");
  check_limit("max_sequence", config.max_sequence, 2, spec.max_positions,
              "max_positions of the engine");
  check(config.max_held_steps >= 0, "max_held_steps", "expected at least 0, got ",
        config.max_held_steps);
  check(config.prefix_cache >= 0 && config.prefix_cache <= 1, "prefix_cache",
        "expected a share of 0..1, got ", config.prefix_cache);
}

void check_request(const Request& request, const ExecutorConfig& config, const EngineSpec& spec) {
  const std::int64_t prompt = check_prompt(request.prompt, spec);
  check(request.max_columns >= 1 && request.max_columns <= config.max_sequence, kSubmit,
        "max_columns: expected 1..", config.max_sequence, " (max_sequence), got ",
        request.max_columns);
  const std::int64_t positions = prompt + request.max_columns;
  check(positions <= config.max_sequence, kSubmit, "prompt: expected at most ",
        config.max_sequence - request.max_columns, " positions (max_sequence ", config.max_sequence,
        " less max_columns ", request.max_columns, "), got ", prompt);
  // The last column is never fed back, so it needs no slot; column 0 is given one in any case.
  const std::int64_t slots = std::max(positions - 1, prompt + 1);
  const std::int32_t blocks = spec.kv.blocks_for(static_cast<std::int32_t>(slots));
  check(blocks <= spec.kv.num_blocks, kSubmit, "prompt: expected to need at most ",
        spec.kv.num_blocks, " KV blocks of ", spec.kv.block_tokens, " positions, got ", blocks,
        " for ", prompt, " prompt positions and ", request.max_columns, " columns");
  static_cast<void>(adapter_index(request.adapter, spec));
  validate(request.sampling, spec.codebook_vocab);
}

std::int32_t adapter_index(const std::string& name, const EngineSpec& spec) {
  if (name.empty()) return -1;
  const auto found = std::find(spec.adapters.begin(), spec.adapters.end(), name);
  if (found != spec.adapters.end()) {
    return static_cast<std::int32_t>(found - spec.adapters.begin());
  }
  std::string known;
  for (const std::string& one : spec.adapters) known += (known.empty() ? "" : ", ") + one;
  fail(ErrorCode::kInvalidArgument, kSubmit, "adapter: expected ",
       known.empty() ? "none, as the runtime was loaded without adapters" : "one of " + known,
       ", got \"", name, "\"");
}

}  // namespace higgs_rt
