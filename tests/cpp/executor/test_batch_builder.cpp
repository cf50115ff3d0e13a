#include "check.h"
#include "executor/batch_builder.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using Ids = std::vector<std::int32_t>;

struct Fixture {
  EngineSpec spec{.num_codebooks = 2,
                  .codebook_vocab = 10,  // BOS 8, EOS 9
                  .text_vocab = 50,
                  .hidden_size = 2,
                  .max_rows = 64,
                  .max_sequences = 4,
                  .max_positions = 64,
                  .kv = {.block_tokens = 4, .num_blocks = 16}};
  BlockPool pool{16};
  StepBatch batch;

  std::unique_ptr<Sequence> make(const Request& request, std::int32_t row) {
    auto sequence =
        std::make_unique<Sequence>(request, std::make_shared<CollectingSink>(), spec, pool);
    sequence->row = row;
    sequence->blocks.reserve(sequence->size());
    return sequence;
  }
};

Request mixed_request() {
  Request request = text_request({5, 6}, 8);
  request.prompt.push_back({.kind = PromptSegment::Kind::kAudio, .ids = {1, 2, 3, 4}, .rows = {}});
  request.prompt.push_back({.kind = PromptSegment::Kind::kTable, .ids = {}, .rows = {.5f, .25f}});
  request.prompt.push_back(text_segment({7}));
  return request;
}

}  // namespace

TEST("sequence: the prompt is expanded with delayed reference columns and column 0") {
  Fixture f;
  const auto sequence = f.make(mixed_request(), 0);
  // 2 text ids, frames (1 3) (2 4) as 5 columns, 1 table row, 1 text id, column 0.
  EXPECT_EQ(sequence->prompt_size(), 9);
  EXPECT_EQ(sequence->size(), 10);
  EXPECT_EQ(sequence->num_columns(), 1);
  const Ids expected = {8, 8, 1, 8, 2, 3, 9, 4, 9, 9};
  for (std::int32_t i = 0; i < 5; ++i) {
    const auto position = sequence->at(2 + i);
    EXPECT(position.kind == PromptSegment::Kind::kAudio);
    const auto column = sequence->column(position.index);
    EXPECT_EQ(column[0], expected[2 * i]);
    EXPECT_EQ(column[1], expected[2 * i + 1]);
  }
  EXPECT_EQ(sequence->last_column()[0], 8);
  EXPECT_EQ(sequence->at(9).index, 5);
  const auto history = sequence->history(2);
  EXPECT(Ids(history.begin(), history.end()) == Ids({9, 4, 9, 9}));
  EXPECT_EQ(sequence->history(64).size(), 10u);
  EXPECT_EQ(sequence->history(0).size(), 0u);
}

TEST("batch builder: text rows first, audio after, sequences in the same order in both") {
  Fixture f;
  const auto prompt = f.make(mixed_request(), 3);
  const auto decode = f.make(text_request({9, 9, 9, 9}, 8), 1);
  decode->computed = 4;
  const std::vector<BatchItem> items = {{decode.get(), 1}, {prompt.get(), 10}};
  build_batch(items, f.spec, f.batch);
  const StepBatch& b = f.batch;
  EXPECT_EQ(b.num_text_rows, 4);
  EXPECT(b.ids == Ids({5, 6, 50, 7, StepBatch::kFeedback + 1, 0, 1, 2, 3, 4, 5}));
  EXPECT(b.sequence == Ids({1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1}));
  EXPECT(b.position == Ids({0, 1, 7, 8, 4, 2, 3, 4, 5, 6, 9}));
  EXPECT(b.columns == Ids({8, 8, 1, 8, 2, 3, 9, 4, 9, 9, 8, 8}));
  EXPECT(b.table_rows == std::vector<float>({.5f, .25f}));
  EXPECT(b.text_offset == Ids({0, 0, 4}));
  EXPECT(b.audio_offset == Ids({4, 5, 11}));
  EXPECT(b.context_length == Ids({5, 10}));
  EXPECT(b.logit_rows == Ids({4, 10}));
  EXPECT(b.sampler_rows == Ids({1, 3}));
  EXPECT_EQ(b.max_blocks, 3);
  const auto p = prompt->blocks.blocks();
  const auto d = decode->blocks.blocks();
  EXPECT(b.block_table == Ids({d[0], d[1], -1, p[0], p[1], p[2]}));
  EXPECT_EQ(b.slot[4], d[1] * 4);
  EXPECT_EQ(b.slot[10], p[2] * 4 + 1);
}

TEST("batch builder: a chunk that stops short wants no logits") {
  Fixture f;
  const auto prompt = f.make(mixed_request(), 0);
  const std::vector<BatchItem> first = {{prompt.get(), 4}};
  build_batch(first, f.spec, f.batch);
  EXPECT(f.batch.position == Ids({0, 1, 2, 3}));
  EXPECT(f.batch.context_length == Ids({4}));
  EXPECT_EQ(f.batch.logit_rows.size(), 0u);
}

TEST("batch builder: recomputed columns come from the host, the last one included") {
  Fixture f;
  const auto sequence = f.make(text_request({9}, 8), 2);
  sequence->append_column(Ids({1, 8}));
  sequence->append_column(Ids({2, 3}));
  sequence->blocks.reserve(sequence->size());
  const std::vector<BatchItem> again = {{sequence.get(), 4}};
  build_batch(again, f.spec, f.batch);
  EXPECT(f.batch.ids == Ids({9, 0, 1, 2}));
  EXPECT(f.batch.columns == Ids({8, 8, 1, 8, 2, 3}));
  EXPECT(f.batch.sampler_rows == Ids({2}));
}

TEST("batch builder: each sequence has the index of its adapter, or -1") {
  Fixture f;
  Request request = text_request({5, 6}, 8);
  const auto plain = f.make(request, 0);
  BatchItem item{plain.get(), 2};
  build_batch({&item, 1}, f.spec, f.batch);
  EXPECT(f.batch.adapter.empty());  // of an engine without adapters
  f.spec.adapters = {"anna", "bert"};
  request.adapter = "bert";
  const auto other = f.make(request, 1);
  EXPECT_EQ(other->adapter(), 1);
  const std::vector<BatchItem> items = {{plain.get(), 2}, {other.get(), 2}};
  build_batch(items, f.spec, f.batch);
  EXPECT(f.batch.adapter == (Ids{-1, 1}));
  request.adapter = "carl";
  EXPECT_THROWS(f.make(request, 2), "adapter: expected one of anna, bert, got \"carl\"");
}
