#include "executor/sequence.h"

#include <algorithm>
#include <bit>

#include "executor/request_check.h"
#include "sampler/delay_pattern.h"

namespace higgs_rt {

Sequence::Sequence(const Request& request, std::shared_ptr<ColumnSink> sink, const EngineSpec& spec,
                   BlockPool& pool)
    : blocks(pool, spec.kv),
      sink_(std::move(sink)),
      sampling_(request.sampling),
      adapter_(adapter_index(request.adapter, spec)),
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

// The kind goes first, so that contents of different kinds differ.
void Sequence::append_content(std::int32_t position, std::vector<std::uint32_t>& content) const {
  const auto [kind, index] = at(position);
  content.push_back(static_cast<std::uint32_t>(kind));
  if (kind == PromptSegment::Kind::kText) {
    content.push_back(static_cast<std::uint32_t>(index));
  } else if (kind == PromptSegment::Kind::kAudio) {
    for (const std::int32_t code : column(index)) {
      content.push_back(static_cast<std::uint32_t>(code));
    }
  } else {
    for (const float value : table_row(index)) {
      content.push_back(std::bit_cast<std::uint32_t>(value));
    }
  }
}

void Sequence::make_keys(const PrefixHasher& hasher) {
  const std::int32_t width = blocks.block_tokens();
  PrefixKey key = hasher.root(static_cast<std::uint64_t>(adapter_ + 1));
  std::vector<std::uint32_t> content;
  for (std::int32_t first = 0; first + width <= prompt_size(); first += width) {
    content.clear();
    for (std::int32_t i = 0; i < width; ++i) append_content(first + i, content);
    key = hasher.next(key, content);
    keys_.push_back(key);
  }
}

void Sequence::append_column(std::span<const std::int32_t> column) {
  columns_.insert(columns_.end(), column.begin(), column.end());
}

}  // namespace higgs_rt
