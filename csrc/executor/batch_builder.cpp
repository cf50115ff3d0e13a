#include "executor/batch_builder.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {
namespace {

using Kind = PromptSegment::Kind;

class BatchBuilder {
 public:
  BatchBuilder(std::span<const BatchItem> items, const EngineSpec& spec, StepBatch& batch)
      : items_(items), spec_(spec), batch_(batch) {}

  void run() {
    batch_.clear();
    add_sequences();
    add_rows(false, batch_.text_offset);
    batch_.num_text_rows = batch_.num_rows();
    add_rows(true, batch_.audio_offset);
    add_logit_rows();
  }

 private:
  void add_sequences() {
    batch_.decode = spec_.separate_decode && is_decode(items_.front());
    batch_.num_sequences = static_cast<std::int32_t>(items_.size());
    for (const BatchItem& item : items_) {
      check_internal(!spec_.separate_decode || is_decode(item) == batch_.decode, "batch_builder",
                     "expected decode rows or prompt rows in a step, got both");
      batch_.max_blocks = std::max(batch_.max_blocks, item.sequence->blocks.size());
      batch_.context_length.push_back(item.sequence->computed + item.rows);
      if (!spec_.adapters.empty()) batch_.adapter.push_back(item.sequence->adapter());
    }
    const auto width = static_cast<std::size_t>(batch_.max_blocks);
    batch_.block_table.assign(items_.size() * width, -1);
    for (std::size_t s = 0; s < items_.size(); ++s) {
      const auto blocks = items_[s].sequence->blocks.blocks();
      std::copy(blocks.begin(), blocks.end(),
                batch_.block_table.begin() + static_cast<std::ptrdiff_t>(s * width));
    }
  }

  static bool is_decode(const BatchItem& item) {
    return item.sequence->computed >= item.sequence->prompt_size();
  }

  // The audio rows of all items, or the others.
  void add_rows(bool audio, std::vector<std::int32_t>& offsets) {
    offsets.push_back(batch_.num_rows());
    for (std::size_t s = 0; s < items_.size(); ++s) {
      const Sequence& sequence = *items_[s].sequence;
      for (std::int32_t i = 0; i < items_[s].rows; ++i) {
        const std::int32_t position = sequence.computed + i;
        const Sequence::Position content = sequence.at(position);
        if ((content.kind == Kind::kAudio) != audio) continue;
        batch_.ids.push_back(row_id(items_[s], content, position));
        batch_.sequence.push_back(static_cast<std::int32_t>(s));
        batch_.position.push_back(position);
        batch_.slot.push_back(sequence.blocks.slot(position));
      }
      offsets.push_back(batch_.num_rows());
    }
  }

  std::int32_t row_id(const BatchItem& item, Sequence::Position content, std::int32_t position) {
    const Sequence& sequence = *item.sequence;
    if (content.kind == Kind::kText) return content.index;
    if (content.kind == Kind::kTable) {
      const auto row = sequence.table_row(content.index);
      batch_.table_rows.insert(batch_.table_rows.end(), row.begin(), row.end());
      return spec_.text_vocab + num_table_rows_++;
    }
    if (item.rows == 1 && position == sequence.planned_size() - 1) {
      return StepBatch::kFeedback + sequence.row;
    }
    check_internal(position < sequence.size(), "batch_builder", "expected a column before ",
                   sequence.size(), " from the host, got position ", position);
    const auto column = sequence.column(content.index);
    batch_.columns.insert(batch_.columns.end(), column.begin(), column.end());
    return num_columns_++;
  }

  void add_logit_rows() {
    for (std::size_t s = 0; s < items_.size(); ++s) {
      if (!wants_logits(items_[s])) continue;
      // The last known position is a column, so it is the sequence's last audio row.
      batch_.logit_rows.push_back(batch_.audio_offset[s + 1] - 1);
      batch_.sampler_rows.push_back(items_[s].sequence->row);
    }
  }

  std::span<const BatchItem> items_;
  const EngineSpec& spec_;
  StepBatch& batch_;
  std::int32_t num_table_rows_ = 0;
  std::int32_t num_columns_ = 0;
};

}  // namespace

void build_batch(std::span<const BatchItem> items, const EngineSpec& spec, StepBatch& batch) {
  BatchBuilder(items, spec, batch).run();
}

}  // namespace higgs_rt
