#include "engine/native/check_batch.h"

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "engine";

void check_within(const char* field, std::int64_t index, std::int64_t value, std::int64_t end) {
  check(value >= 0 && value < end, kWhere, "expected ", field, "[", index, "] in [0, ", end,
        "), got ", value);
}

void check_size(const char* field, std::size_t size, std::int64_t expected) {
  check(static_cast<std::int64_t>(size) == expected, kWhere, "expected ", expected, " elements in ",
        field, ", got ", size);
}

void check_sizes(const StepBatch& batch, const EngineSpec& spec) {
  const std::int64_t rows = batch.num_rows();
  check(rows >= 1 && rows <= spec.max_rows, kWhere, "expected 1..", spec.max_rows,
        " rows in a step, got ", rows);
  check_within("num_text_rows", 0, batch.num_text_rows, rows + 1);
  check_size("sequence", batch.sequence.size(), rows);
  check_size("position", batch.position.size(), rows);
  check_size("slot", batch.slot.size(), rows);
  const std::int64_t sequences = batch.num_sequences;
  check(sequences >= 1 && sequences <= spec.max_sequences, kWhere, "expected 1..",
        spec.max_sequences, " sequences in a step, got ", sequences);
  const std::int32_t most_blocks = spec.kv.blocks_for(spec.max_positions);
  check(batch.max_blocks >= 1 && batch.max_blocks <= most_blocks, kWhere, "expected max_blocks 1..",
        most_blocks, ", got ", batch.max_blocks);
  check_size("block_table", batch.block_table.size(), sequences * batch.max_blocks);
  check_size("context_length", batch.context_length.size(), sequences);
  if (!batch.adapter.empty()) check_size("adapter", batch.adapter.size(), sequences);
  check_size("text_offset", batch.text_offset.size(), sequences + 1);
  check_size("audio_offset", batch.audio_offset.size(), sequences + 1);
  check(batch.columns.size() % static_cast<std::size_t>(spec.num_codebooks) == 0, kWhere,
        "expected columns of ", spec.num_codebooks, " ids, got ", batch.columns.size(), " ids");
  check(batch.columns.size() <=
            static_cast<std::size_t>(spec.max_rows) * static_cast<std::size_t>(spec.num_codebooks),
        kWhere, "expected at most ", spec.max_rows, " columns, got ", batch.columns.size(), " ids");
  const auto hidden = static_cast<std::size_t>(spec.hidden_size);
  check(batch.table_rows.size() % hidden == 0 &&
            batch.table_rows.size() <= hidden * static_cast<std::size_t>(spec.max_rows),
        kWhere, "expected at most ", spec.max_rows, " table rows of ", hidden, " numbers, got ",
        batch.table_rows.size(), " numbers");
  check(static_cast<std::int64_t>(batch.logit_rows.size()) <= spec.max_rows, kWhere,
        "expected at most ", spec.max_rows, " logit rows, got ", batch.logit_rows.size());
}

void check_ids(const StepBatch& batch, const StepOutput& output, const EngineSpec& spec) {
  const auto table = static_cast<std::int64_t>(batch.table_rows.size()) / spec.hidden_size;
  const auto given = static_cast<std::int64_t>(batch.columns.size()) / spec.num_codebooks;
  for (std::int32_t i = 0; i < batch.num_rows(); ++i) {
    const std::int32_t id = batch.ids[static_cast<std::size_t>(i)];
    if (i < batch.num_text_rows) {
      check_within("ids", i, id, spec.text_vocab + table);
    } else if (id >= StepBatch::kFeedback) {
      check(output.last_columns != nullptr, kWhere,
            "expected last_columns from the sampler, as ids[", i, "] refers to sampler row ",
            id - StepBatch::kFeedback);
    } else {
      check_within("ids", i, id, given);
    }
  }
  for (std::size_t i = 0; i < batch.columns.size(); ++i) {
    check_within("columns", static_cast<std::int64_t>(i), batch.columns[i], spec.codebook_vocab);
  }
}

// Each row's position is in its sequence's context, and its slot is where the block table says.
void check_places(const StepBatch& batch, const EngineSpec& spec) {
  for (std::size_t s = 0; s < batch.context_length.size(); ++s) {
    check_within("context_length", static_cast<std::int64_t>(s), batch.context_length[s],
                 std::int64_t{spec.max_positions} + 1);
    const auto index = static_cast<std::int64_t>(s);
    const std::int32_t blocks = spec.kv.blocks_for(batch.context_length[s]);
    check(blocks <= batch.max_blocks, kWhere, "expected ", blocks, " blocks for sequence ", index,
          ", got a table of ", batch.max_blocks);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t entry = index * batch.max_blocks + b;
      check_within("block_table", entry, batch.block_table[static_cast<std::size_t>(entry)],
                   spec.kv.num_blocks);
    }
  }
  for (std::size_t s = 0; s < batch.adapter.size(); ++s) {
    if (batch.adapter[s] == -1) continue;
    check_within("adapter", static_cast<std::int64_t>(s), batch.adapter[s],
                 std::ssize(spec.adapters));
  }
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const std::int32_t sequence = batch.sequence[i];
    check_within("sequence", index, sequence, batch.num_sequences);
    check_within("position", index, batch.position[i],
                 batch.context_length[static_cast<std::size_t>(sequence)]);
    const std::int32_t* blocks =
        batch.block_table.data() + std::int64_t{sequence} * batch.max_blocks;
    const std::int32_t slot = spec.kv.slot(blocks, batch.position[i]);
    check(batch.slot[i] == slot, kWhere, "expected slot[", i, "] ", slot,
          " by the block table, got ", batch.slot[i]);
  }
  for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
    check_within("logit_rows", static_cast<std::int64_t>(i), batch.logit_rows[i], batch.num_rows());
  }
}

// The offsets describe the same rows as `sequence`.
void check_offsets(const char* field, const std::vector<std::int32_t>& offsets, std::int32_t begin,
                   std::int32_t end, const StepBatch& batch) {
  check(offsets.front() == begin && offsets.back() == end, kWhere, "expected ", field, " from ",
        begin, " to ", end, ", got ", offsets.front(), " to ", offsets.back());
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    check(offsets[s] >= begin && offsets[s] <= offsets[s + 1] && offsets[s + 1] <= end, kWhere,
          "expected ascending ", field, ", got ", offsets[s], " before ", offsets[s + 1]);
    for (std::int32_t row = offsets[s]; row < offsets[s + 1]; ++row) {
      check(batch.sequence[static_cast<std::size_t>(row)] == static_cast<std::int32_t>(s), kWhere,
            "expected row ", row, " of sequence ", s, " by ", field, ", got sequence ",
            batch.sequence[static_cast<std::size_t>(row)]);
    }
  }
}

// Row i is the one row of sequence i, and the first ones give logits.
void check_decode(const StepBatch& batch, const EngineSpec& spec) {
  check(spec.separate_decode, kWhere, "expected a step of any rows, got one of decode rows");
  check(batch.num_text_rows == 0 && batch.num_sequences == batch.num_rows(), kWhere,
        "expected a decode step of one audio row for each sequence, got ", batch.num_text_rows,
        " text rows and ", batch.num_rows(), " rows of ", batch.num_sequences, " sequences");
  for (std::size_t s = 0; s < batch.sequence.size(); ++s) {
    check(batch.sequence[s] == static_cast<std::int32_t>(s), kWhere, "expected row ", s,
          " of a decode step to be of sequence ", s, ", got ", batch.sequence[s]);
  }
  for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
    check(batch.logit_rows[i] == static_cast<std::int32_t>(i), kWhere, "expected logit_rows[", i,
          "] ", i, " in a decode step, got ", batch.logit_rows[i]);
  }
}

}  // namespace

void check_batch(const StepBatch& batch, const StepOutput& output, const EngineSpec& spec) {
  check_sizes(batch, spec);
  check_ids(batch, output, spec);
  check_places(batch, spec);
  check_offsets("text_offset", batch.text_offset, 0, batch.num_text_rows, batch);
  check_offsets("audio_offset", batch.audio_offset, batch.num_text_rows, batch.num_rows(), batch);
  if (batch.decode) check_decode(batch, spec);
}

void check_tail(const StepBatch& batch, const StepOutput& output, const StepTail& tail) {
  check(output.last_columns == tail.last_columns, kWhere,
        "expected last_columns of the attached sampler, got another address");
  check_size("sampler_rows", batch.sampler_rows.size(),
             static_cast<std::int64_t>(batch.logit_rows.size()));
  for (std::size_t i = 0; i < batch.sampler_rows.size(); ++i) {
    check_within("sampler_rows", static_cast<std::int64_t>(i), batch.sampler_rows[i],
                 tail.num_rows);
  }
  for (auto i = static_cast<std::size_t>(batch.num_text_rows); i < batch.ids.size(); ++i) {
    if (batch.ids[i] < StepBatch::kFeedback) continue;
    check_within("ids", static_cast<std::int64_t>(i), batch.ids[i] - StepBatch::kFeedback,
                 tail.num_rows);
  }
}

}  // namespace higgs_rt
