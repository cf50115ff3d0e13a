#include <algorithm>
#include <bit>
#include <set>

#include "check.h"
#include "executor/fake_engine.h"

namespace higgs_rt::testing {

std::uint64_t hash_text(std::int32_t id) { return mix(1, static_cast<std::uint64_t>(id)); }

std::uint64_t hash_column(const std::int32_t* column, std::int32_t num_codebooks) {
  std::uint64_t hash = 2;
  for (std::int32_t k = 0; k < num_codebooks; ++k) {
    hash = mix(hash, static_cast<std::uint64_t>(column[k]));
  }
  return hash;
}

std::uint64_t hash_table_row(const float* row, std::int32_t hidden_size) {
  std::uint64_t hash = 3;
  for (std::int32_t i = 0; i < hidden_size; ++i)
    hash = mix(hash, std::bit_cast<std::uint32_t>(row[i]));
  return hash;
}

std::uint64_t hash_decoded(std::uint64_t content) { return mix(content, 9); }

void hash_logits(std::uint64_t history, const EngineSpec& spec, float* logits) {
  for (std::int32_t k = 0; k < spec.num_codebooks; ++k) {
    for (std::int32_t v = 0; v < spec.codebook_vocab; ++v) {
      const std::uint64_t hash =
          mix(history, static_cast<std::uint64_t>(k * spec.codebook_vocab + v));
      *logits = static_cast<float>(hash >> 40) / static_cast<float>(1 << 24) * 4.0f;
      if (v == spec.codebook_vocab - 1) *logits -= k == 0 ? 1.0f : 6.0f;
      ++logits;
    }
  }
}

EngineSpec small_spec(KvLayout kv) {
  return {.num_codebooks = 4,
          .codebook_vocab = 18,
          .text_vocab = 100,
          .hidden_size = 6,
          .max_rows = 64,
          .max_sequences = 8,
          .max_positions = 512,
          .kv = kv,
          .shared_blocks = true};
}

FakeEngine::FakeEngine(const EngineSpec& spec)
    : spec_(spec),
      cells_(static_cast<std::size_t>(spec.kv.num_slots())),
      logits_(static_cast<std::size_t>(spec.max_rows) * spec.num_codebooks * spec.codebook_vocab) {}

void FakeEngine::attach(StepTail tail) {
  queue.run_all();
  tail_ = std::move(tail);
}

void FakeEngine::forward(const StepBatch& batch, StepOutput& output) {
  if (before_step) before_step(batch);
  try {
    verify(batch);
  } catch (const std::exception& error) {
    violations.push_back(error.what());
    throw;
  }
  for (std::int32_t row = 0; row < batch.num_text_rows; ++row) {
    check(poison < 0 || batch.ids[row] != poison, "fake_engine", "expected no text id ", poison);
  }
  ++steps;
  most_rows = std::max(most_rows, batch.num_rows());
  output.logits = logits_.data();
  if (!spec_.asynchronous) return compute(batch, output.last_columns);
  output.sampled = runs_tail && tail_.enqueue;
  queue.push([this, batch, last = output.last_columns, sampled = output.sampled] {
    compute(batch, last);
    if (!sampled || batch.logit_rows.empty()) return;
    std::vector<std::int32_t> rows = batch.sampler_rows;  // with padding, as a graph would have
    rows.resize(std::min(rows.size() * 2, static_cast<std::size_t>(spec_.max_rows)), -1);
    tail_.enqueue(logits_.data(), rows.data(), static_cast<std::int32_t>(rows.size()));
  });
}

void FakeEngine::compute(const StepBatch& batch, const std::int32_t* last_columns) {
  for (std::int32_t row = 0; row < batch.num_rows(); ++row) {
    cells_[batch.slot[row]] = {content(batch, last_columns, row), batch.position[row]};
  }
  const std::size_t width = static_cast<std::size_t>(spec_.num_codebooks) * spec_.codebook_vocab;
  for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const std::int32_t row = batch.logit_rows[i];
    std::uint64_t history = 0;
    for (std::int32_t p = 0; p <= batch.position[row]; ++p) {
      const Cell& cell = cells_[slot_of(batch, batch.sequence[row], p)];
      if (cell.position != p) violations.push_back("a position is in the wrong slot");
      history = mix(history, cell.content);
    }
    hash_logits(history, spec_, logits_.data() + i * width);
  }
}

std::int32_t FakeEngine::slot_of(const StepBatch& batch, std::int32_t s,
                                 std::int32_t position) const {
  return spec_.kv.slot(batch.block_table.data() + std::ptrdiff_t{s} * batch.max_blocks, position);
}

std::uint64_t FakeEngine::content(const StepBatch& batch, const std::int32_t* last_columns,
                                  std::int32_t row) const {
  const std::int32_t id = batch.ids[row];
  if (row < batch.num_text_rows) {
    if (id < spec_.text_vocab) return hash_text(id);
    const std::ptrdiff_t index = id - spec_.text_vocab;
    return hash_table_row(batch.table_rows.data() + index * spec_.hidden_size, spec_.hidden_size);
  }
  const std::int32_t* columns = id >= StepBatch::kFeedback ? last_columns : batch.columns.data();
  const std::ptrdiff_t index = id >= StepBatch::kFeedback ? id - StepBatch::kFeedback : id;
  const std::uint64_t hash =
      hash_column(columns + index * spec_.num_codebooks, spec_.num_codebooks);
  return batch.decode ? hash_decoded(hash) : hash;
}

void FakeEngine::verify(const StepBatch& batch) const {
  const char* where = "fake_engine";
  const auto rows = static_cast<std::size_t>(batch.num_rows());
  const auto sequences = static_cast<std::size_t>(batch.num_sequences);
  check_internal(batch.num_rows() >= 1 && batch.num_rows() <= spec_.max_rows, where, "rows ", rows);
  check_internal(batch.num_sequences <= spec_.max_sequences, where, "sequences ", sequences);
  check_internal(
      batch.sequence.size() == rows && batch.position.size() == rows && batch.slot.size() == rows &&
          batch.context_length.size() == sequences && batch.text_offset.size() == sequences + 1 &&
          batch.audio_offset.size() == sequences + 1 &&
          batch.block_table.size() == sequences * static_cast<std::size_t>(batch.max_blocks),
      where, "sizes");
  verify_range(batch, batch.text_offset, 0, batch.num_text_rows);
  verify_range(batch, batch.audio_offset, batch.num_text_rows, batch.num_rows());
  verify_blocks(batch);
  if (batch.decode) verify_decode(batch);
  std::set<std::int32_t> targets(batch.sampler_rows.begin(), batch.sampler_rows.end());
  check_internal(targets.size() == batch.logit_rows.size(), where, "sampler rows repeat");
  for (const std::int32_t row : batch.logit_rows) {
    check_internal(row >= batch.num_text_rows && row < batch.num_rows(), where, "logit row ", row);
    check_internal(batch.position[row] + 1 == batch.context_length[batch.sequence[row]], where,
                   "logits of a row that is not the last");
  }
}

// Offsets cover the range, and each sequence's rows are its own with ascending positions.
void FakeEngine::verify_range(const StepBatch& batch, const std::vector<std::int32_t>& offset,
                              std::int32_t begin, std::int32_t end) const {
  check_internal(offset.front() == begin && offset.back() == end, "fake_engine", "offset range");
  for (std::int32_t s = 0; s < batch.num_sequences; ++s) {
    check_internal(offset[s] <= offset[s + 1], "fake_engine", "offset order");
    for (std::int32_t row = offset[s]; row < offset[s + 1]; ++row) {
      check_internal(batch.sequence[row] == s, "fake_engine", "row of another sequence");
      check_internal(row == offset[s] || batch.position[row] > batch.position[row - 1],
                     "fake_engine", "position order");
      check_internal(batch.slot[row] == slot_of(batch, s, batch.position[row]), "fake_engine",
                     "slot");
    }
  }
}

// One column of each sequence, those with logits first.
void FakeEngine::verify_decode(const StepBatch& batch) const {
  check_internal(spec_.separate_decode, "fake_engine", "a decode step");
  check_internal(batch.num_text_rows == 0 && batch.num_sequences == batch.num_rows(), "fake_engine",
                 "rows of a decode step");
  for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
    check_internal(batch.logit_rows[i] == static_cast<std::int32_t>(i), "fake_engine",
                   "order of a decode step");
  }
}

// A sequence's rows are the last positions of its context, without a gap, and a block that is in
// two tables is written by neither.
void FakeEngine::verify_blocks(const StepBatch& batch) const {
  std::set<std::int32_t> blocks, shared, written;
  for (std::int32_t s = 0; s < batch.num_sequences; ++s) {
    std::set<std::int32_t> positions;
    for (std::int32_t row = 0; row < batch.num_rows(); ++row) {
      if (batch.sequence[row] == s) positions.insert(batch.position[row]);
    }
    const std::int32_t context = batch.context_length[s];
    check_internal(!positions.empty() && *positions.rbegin() == context - 1 &&
                       *positions.begin() == context - static_cast<std::int32_t>(positions.size()),
                   "fake_engine", "positions of a sequence have a gap");
    for (std::int32_t b = 0; b < batch.max_blocks; ++b) {
      const std::int32_t block = batch.block_table[std::ptrdiff_t{s} * batch.max_blocks + b];
      const bool used = b < spec_.kv.blocks_for(context);
      check_internal(block >= (used ? 0 : -1) && block < spec_.kv.num_blocks, "fake_engine",
                     "block");
      if (block >= 0 && !blocks.insert(block).second) shared.insert(block);
    }
  }
  for (const std::int32_t slot : batch.slot) written.insert(slot / spec_.kv.block_tokens);
  for (const std::int32_t block : shared) {
    check_internal(spec_.shared_blocks, "fake_engine", "a block is shared");
    check_internal(!written.contains(block), "fake_engine", "a shared block is written");
  }
}

}  // namespace higgs_rt::testing

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Two text rows and one column in two blocks of two positions.
StepBatch small_batch() {
  StepBatch batch;
  batch.num_text_rows = 2;
  batch.ids = {5, 6, 0};
  batch.sequence = {0, 0, 0};
  batch.position = {0, 1, 2};
  batch.slot = {2, 3, 0};
  batch.columns = {16, 16, 16, 16};
  batch.num_sequences = 1;
  batch.max_blocks = 2;
  batch.block_table = {1, 0};
  batch.context_length = {3};
  batch.text_offset = {0, 2};
  batch.audio_offset = {2, 3};
  batch.logit_rows = {2};
  batch.sampler_rows = {0};
  return batch;
}

}  // namespace

TEST("fake engine: logits depend on every position, and broken batches are refused") {
  const EngineSpec spec = small_spec({.block_tokens = 2, .num_blocks = 4});
  const auto first_logit = [&](const StepBatch& batch) {
    FakeEngine engine(spec);
    StepOutput output;
    engine.forward(batch, output);
    return output.logits[0];
  };
  const float expected = first_logit(small_batch());
  EXPECT_EQ(first_logit(small_batch()), expected);
  StepBatch moved = small_batch();
  moved.block_table = {3, 2};
  moved.slot = {6, 7, 4};
  EXPECT_EQ(first_logit(moved), expected);
  StepBatch other = small_batch();
  other.ids[0] = 7;
  EXPECT(first_logit(other) != expected);
  other = small_batch();
  other.columns[3] = 15;
  EXPECT(first_logit(other) != expected);
  other = small_batch();
  other.slot[1] = 2;
  EXPECT_THROWS(first_logit(other), "slot");
  other = small_batch();
  other.position = {1, 0, 2};
  other.slot = {3, 2, 0};
  EXPECT_THROWS(first_logit(other), "position order");
  other = small_batch();
  other.audio_offset = {3, 3};
  EXPECT_THROWS(first_logit(other), "offset range");
}

TEST("fake engine: a block that two sequences write is refused") {
  StepBatch batch = small_batch();
  batch.num_sequences = 2;
  batch.sequence = {0, 0, 0, 1};
  batch.num_text_rows = 2;
  batch.ids = {5, 6, 0, 0};
  batch.position = {0, 1, 2, 2};
  batch.slot = {2, 3, 0, 4};
  batch.block_table = {1, 0, 1, 2};  // block 1 is written by the first and read by both
  batch.context_length = {3, 3};
  batch.text_offset = {0, 2, 2};
  batch.audio_offset = {2, 3, 4};
  FakeEngine engine(small_spec({.block_tokens = 2, .num_blocks = 4}));
  StepOutput output;
  EXPECT_THROWS(engine.forward(batch, output), "a shared block is written");
}
