#include "executor/sequence.h"

#include <algorithm>

#include "sampler/delay_pattern.h"

namespace higgs_rt {

Sequence::Sequence(const Request& request, std::shared_ptr<ColumnSink> sink, const EngineSpec& spec,
                   BlockPool& pool)
    : blocks(pool, spec.kv),
      sink_(std::move(sink)),
      sampling_(request.sampling),
      max_columns_(request.max_columns),
      num_codebooks_(spec.num_codebooks),
      hidden_size_(spec.hidden_size) {
  for (const PromptSegment& segment : request.prompt) append_segment(segment, spec);
  prompt_columns_ = column_count();
  columns_.insert(columns_.end(), static_cast<std::size_t>(num_codebooks_),
                  spec.codebook_vocab - 2);
}

void Sequence::append_segment(const PromptSegment& segment, const EngineSpec& spec) {
  using Kind = PromptSegment::Kind;
  const auto append_positions = [&](std::int32_t first, std::int32_t end) {
    for (std::int32_t i = first; i < end; ++i) prompt_.push_back({segment.kind, i});
  };
  if (segment.kind == Kind::kText) {
    for (const std::int32_t token : segment.ids) prompt_.push_back({Kind::kText, token});
  } else if (segment.kind == Kind::kAudio) {
    const std::int32_t first = column_count();
    const auto delayed = apply_delay(segment.ids, spec.num_codebooks, spec.codebook_vocab - 2);
    columns_.insert(columns_.end(), delayed.begin(), delayed.end());
    append_positions(first, column_count());
  } else {
    const auto first = static_cast<std::int32_t>(table_.size()) / hidden_size_;
    table_.insert(table_.end(), segment.rows.begin(), segment.rows.end());
    append_positions(first, static_cast<std::int32_t>(table_.size()) / hidden_size_);
  }
}

Sequence::Position Sequence::at(std::int32_t position) const {
  if (position < prompt_size()) return prompt_[static_cast<std::size_t>(position)];
  return {PromptSegment::Kind::kAudio, prompt_columns_ + position - prompt_size()};
}

std::span<const std::int32_t> Sequence::column(std::int32_t index) const {
  return std::span(columns_).subspan(static_cast<std::size_t>(index) * num_codebooks_,
                                     static_cast<std::size_t>(num_codebooks_));
}

std::span<const float> Sequence::table_row(std::int32_t index) const {
  return std::span(table_).subspan(static_cast<std::size_t>(index) * hidden_size_,
                                   static_cast<std::size_t>(hidden_size_));
}

std::span<const std::int32_t> Sequence::history(std::int32_t window) const {
  const std::int32_t count = std::min(window, prompt_columns_);
  return std::span(columns_).subspan(
      static_cast<std::size_t>(prompt_columns_ - count) * num_codebooks_,
      static_cast<std::size_t>(count) * num_codebooks_);
}

void Sequence::append_column(std::span<const std::int32_t> column) {
  columns_.insert(columns_.end(), column.begin(), column.end());
}

}  // namespace higgs_rt
