#include "engine/native/decode_graphs.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

namespace {

// 1, 2, 4, 8, then steps of 8 up to 64, of 16 up to 256, and of an eighth of the power of two
// below.
std::int32_t next_size(std::int32_t rows) {
  const auto power = static_cast<std::int32_t>(std::bit_floor(static_cast<std::uint32_t>(rows)));
  return rows < 8 ? 2 * rows : rows + std::max(8, power / (rows < 128 ? 4 : 8));
}

}  // namespace

std::int32_t DecodeGraphs::largest(std::int32_t max_sequences) {
  std::int32_t rows = 1;
  while (rows < max_sequences) rows = next_size(rows);
  return rows;
}

std::int64_t DecodeGraphs::staged_words(std::int32_t rows, std::int32_t max_blocks,
                                        std::int32_t num_codebooks) {
  constexpr std::int64_t kArrays = 8, kPadding = 4;
  return std::int64_t{rows} * (kArrays - 2 + max_blocks + num_codebooks) + kArrays * kPadding;
}

DecodeGraphs::DecodeGraphs(const EngineSpec& spec, std::int32_t max_blocks,
                           std::int32_t scratch_block, const StepTail& tail, StepStaging& staging,
                           Device& device, Forward forward)
    : num_codebooks_(spec.num_codebooks),
      has_adapters_(!spec.adapters.empty()),
      block_tokens_(spec.kv.block_tokens),
      max_blocks_(max_blocks),
      scratch_block_(scratch_block),
      last_columns_(tail.last_columns),
      sampler_rows_(tail.num_rows),
      staging_(staging),
      device_(device),
      forward_(std::move(forward)) {
  const std::int32_t most = largest(spec.max_sequences);
  for (std::int32_t rows = 1; rows <= most; rows = next_size(rows)) record(rows);
}

void DecodeGraphs::record(std::int32_t rows) {
  const auto stage_padding = [&] {
    staging_.begin();
    const Staged staged = stage(StepBatch{}, rows);
    staging_.upload();
    return staged;
  };
  // Once without recording: kernels are loaded and libraries choose their algorithms.
  const Staged staged = stage_padding();
  const float* logits = forward_(staged.batch, staged.sampler_rows);
  device_.synchronize();
  auto graph = device_.capture([this, staged] { forward_(staged.batch, staged.sampler_rows); });
  recordings_.push_back({rows, std::move(graph), logits});
}

const float* DecodeGraphs::run(const StepBatch& batch) {
  const auto found =
      std::find_if(recordings_.begin(), recordings_.end(),
                   [&](const Recording& recording) { return recording.rows >= batch.num_rows(); });
  staging_.begin();
  stage(batch, found->rows);
  staging_.upload();
  found->graph->launch();
  return found->logits;
}

DecodeGraphs::Staged DecodeGraphs::stage(const StepBatch& batch, std::int32_t rows) {
  const auto filled = static_cast<std::size_t>(batch.num_rows());
  const auto take = [&](const std::vector<std::int32_t>& values, std::int32_t padding) {
    const StepStaging::Array array = staging_.take({rows});
    std::fill(std::copy(values.begin(), values.end(), array.host.begin()), array.host.end(),
              padding);
    return array.device;
  };
  Staged staged;
  DecoderBatch& step = staged.batch;
  step.ids = take(batch.ids, StepBatch::kFeedback);
  step.position = take(batch.position, 0);
  step.slot = take(batch.slot, scratch_block_ * block_tokens_);
  staged.sampler_rows = take(batch.sampler_rows, -1);
  if (has_adapters_) step.adapter = take(batch.adapter, -1);
  // Row i is sequence i, and its logits are row i of the logits.
  const StepStaging::Array identity = staging_.take({rows});
  for (std::int32_t i = 0; i < rows; ++i) identity.host[static_cast<std::size_t>(i)] = i;
  step.sequence = step.logit_rows = identity.device;
  // Entries behind a sequence's own are left as they are: no position leads there.
  const StepStaging::Array table = staging_.take({rows, max_blocks_});
  const auto width = static_cast<std::size_t>(max_blocks_);
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
    const auto to = table.host.subspan(i * width, width);
    if (i >= filled) {
      to[0] = scratch_block_;
      continue;
    }
    const auto own = static_cast<std::size_t>(batch.max_blocks);
    std::copy_n(batch.block_table.begin() + static_cast<std::ptrdiff_t>(i * own), own, to.begin());
  }
  step.block_table = table.device;
  step.kind = RowKind::kDecode;
  const StepStaging::Array columns = staging_.take({rows, num_codebooks_});
  std::copy(batch.columns.begin(), batch.columns.end(), columns.host.begin());
  step.columns = columns.device;
  step.table_rows = {step.columns.data, DType::kF32, {0, 1}};
  step.last_columns = {
      const_cast<std::int32_t*>(last_columns_), DType::kI32, {sampler_rows_, num_codebooks_}};
  return staged;
}

}  // namespace higgs_rt
