// A request on its way through the executor: its expanded positions and where it stands.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "executor/executor.h"
#include "higgs_rt/types.h"
#include "kv/block_table.h"
#include "kv/prefix_key.h"

namespace higgs_rt {

// Positions 0 .. prompt_size() - 1 are the prompt: text ids, table rows, and the delayed columns of
// reference codes (specification 4.5). Position prompt_size() + j is generated column j; column 0
// is the synthetic all-BOS column and exists from the start, so the logits at position size() - 1
// always give the next column (specification 6.1). Columns are kept here to be computed again after
// preemption. Built by the submitting thread, owned by the step thread after that.
class Sequence {
 public:
  struct Position {
    PromptSegment::Kind kind;
    std::int32_t index;  // text id, table row, or column (below), by `kind`
  };

  // `request` has passed check_request().
  Sequence(const Request& request, std::shared_ptr<ColumnSink> sink, const EngineSpec& spec,
           BlockPool& pool);

  std::int32_t prompt_size() const { return static_cast<std::int32_t>(prompt_.size()); }
  // Positions known so far: prompt and columns.
  std::int32_t size() const { return prompt_size() + num_columns(); }
  // The same with the columns of steps in flight: what the next step goes on from.
  std::int32_t planned_size() const { return size() + pending; }
  std::int32_t num_columns() const { return column_count() - prompt_columns_; }
  std::int32_t max_columns() const { return max_columns_; }
  const SamplingParams& sampling() const { return sampling_; }
  std::int32_t adapter() const { return adapter_; }  // index in EngineSpec::adapters; -1: none
  ColumnSink& sink() const { return *sink_; }

  Position at(std::int32_t position) const;
  // A column of the prompt or a generated one, by Position::index; [num_codebooks].
  std::span<const std::int32_t> column(std::int32_t index) const;
  std::span<const float> table_row(std::int32_t index) const;  // [hidden_size]
  // The last `window` reference columns of the prompt or fewer, [n, num_codebooks].
  std::span<const std::int32_t> history(std::int32_t window) const;
  std::span<const std::int32_t> last_column() const { return column(column_count() - 1); }
  void append_column(std::span<const std::int32_t> column);

  // The keys of the blocks that the prompt fills; without a call there are none. The block of the
  // last known position is never among them, so there is always a row to compute.
  void make_keys(const PrefixHasher& hasher);
  std::span<const PrefixKey> keys() const { return keys_; }

  std::uint64_t id = 0;       // given by the mailbox
  std::int32_t row = -1;      // sampler row; -1 while waiting
  std::int32_t computed = 0;  // positions whose keys and values are in the blocks, or will be
  std::int32_t pending = 0;   // columns that steps in flight will write
  BlockTable blocks;
  // While it has no blocks: those of the prefix cache that its prompt begins with, for the plan
  // being made.
  std::vector<std::int32_t> found;

 private:
  std::int32_t column_count() const {
    return static_cast<std::int32_t>(columns_.size()) / num_codebooks_;
  }
  void append_segment(const PromptSegment& segment, const EngineSpec& spec);
  void append_content(std::int32_t position, std::vector<std::uint32_t>& content) const;

  std::shared_ptr<ColumnSink> sink_;
  SamplingParams sampling_;
  std::int32_t adapter_;
  std::int32_t max_columns_;
  std::int32_t num_codebooks_;
  std::int32_t hidden_size_;
  std::int32_t prompt_columns_ = 0;
  std::vector<Position> prompt_;
  std::vector<std::int32_t> columns_;  // [column_count(), num_codebooks]: the prompt's, then ours
  std::vector<float> table_;           // [table rows, hidden_size]
  std::vector<PrefixKey> keys_;        // [full blocks of the prompt]
};

}  // namespace higgs_rt
