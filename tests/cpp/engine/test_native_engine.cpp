// The native engine against transformers' logits, and against itself in other compositions.
#include <algorithm>
#include <array>
#include <cmath>

#include "check.h"
#include "engine/golden.h"
#include "io/checkpoint.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::array kLayouts = {"transformers", "original"};

Logits whole(Model& model, const std::string& layout) {
  Sequence sequence = golden_sequence(layout);
  return feed(model.engine(), sequence, {64});
}

}  // namespace

TEST("engine: logits equal to transformers' in both layouts, fp32 and bf16 weights") {
  for (const std::string layout : kLayouts) {
    Model model(layout);
    const float difference = largest_difference(whole(model, layout), golden_logits(layout));
    std::cout << "  " << layout << ": largest difference " << difference << '\n';
    EXPECT(difference <= 1e-4f);
  }
}

TEST("engine: chunked prefill and one position at a time equal to whole, bit for bit") {
  for (const std::string layout : kLayouts) {
    Model model(layout);
    const Logits expected = whole(model, layout);
    for (const std::vector<std::int32_t>& sizes :
         {std::vector<std::int32_t>{1}, {7}, {10, 1, 16, 5, 2}, {22, 1}}) {
      Sequence sequence = golden_sequence(layout, 47, -3);
      EXPECT(feed(model.engine(), sequence, sizes) == expected);
    }
  }
}

TEST("engine: steps that want no logits leave the same keys and values, bit for bit") {
  for (const std::string layout : kLayouts) {
    Model model(layout);
    const Logits expected = whole(model, layout);
    const auto total = static_cast<std::int32_t>(golden_sequence(layout).positions.size());
    const auto width = expected.size() / static_cast<std::size_t>(total);
    for (const std::int32_t first : {1, 20, total - 1}) {
      Sequence sequence = golden_sequence(layout);
      pass(model.engine(), sequence, first);
      const Logits rest = feed(model.engine(), sequence, {64});
      EXPECT_EQ(rest.size(), static_cast<std::size_t>(total - first) * width);
      EXPECT(std::equal(rest.rbegin(), rest.rend(), expected.rbegin()));
    }
  }
}

TEST("engine: logits of the last row alone equal to those among all, bit for bit") {
  for (const std::string layout : kLayouts) {
    Model model(layout);
    const Logits expected = whole(model, layout);
    Sequence sequence = golden_sequence(layout);
    const auto total = static_cast<std::int32_t>(sequence.positions.size());
    const auto width = expected.size() / static_cast<std::size_t>(total);
    for (const std::int32_t count : {total - 2, 1, 1}) {
      const std::vector<Portion> portions = {{&sequence, count}};
      StepBatch batch = build_batch(portions, model.spec());
      // The last position is the last row of the audio rows, or of the text rows where it is text.
      const auto last = std::ranges::max_element(batch.position) - batch.position.begin();
      batch.logit_rows = {static_cast<std::int32_t>(last)};
      StepOutput output;
      model.engine().forward(batch, output);
      sequence.done += count;
      EXPECT(
          std::equal(output.logits, output.logits + width,
                     expected.begin() + static_cast<std::ptrdiff_t>(width) * (sequence.done - 1)));
    }
  }
}

TEST("engine: sequences in one batch equal to each alone, bit for bit") {
  for (const std::string layout : kLayouts) {
    Model model(layout, 128);
    const Logits expected = whole(model, layout);
    std::vector<Sequence> sequences;
    for (std::int32_t s = 0; s < 3; ++s) sequences.push_back(golden_sequence(layout, s, 3));
    for (const Logits& logits : feed_staggered(model.engine(), sequences)) {
      EXPECT(logits == expected);
    }
  }
}

TEST("engine: prompt-table rows equal to the token with the same embedding") {
  Model model("transformers");
  const Checkpoint checkpoint(golden_dir() + "transformers");
  const auto hidden = static_cast<std::size_t>(model.spec().hidden_size);
  const TensorView table = checkpoint.tensor("model.embed_tokens.weight",
                                             {model.spec().text_vocab, model.spec().hidden_size});
  const Logits expected = whole(model, "transformers");
  Sequence sequence = golden_sequence("transformers");
  for (std::size_t p = 0; p < sequence.positions.size(); p += 2) {
    Position& position = sequence.positions[p];
    if (position.is_audio()) continue;
    const float* row = table.as<float>() + static_cast<std::size_t>(position.text) * hidden;
    position.row.assign(row, row + hidden);
  }
  EXPECT(feed(model.engine(), sequence, {5, 40}) == expected);
}

TEST("engine: columns fed back on the device equal to columns given by the host") {
  Model model("original");
  const Logits expected = whole(model, "original");
  Sequence sequence = golden_sequence("original");
  const auto books = static_cast<std::size_t>(model.spec().num_codebooks);
  Logits got;
  std::vector<std::int32_t> last(3 * books, -1);
  while (sequence.done < static_cast<std::int32_t>(sequence.positions.size())) {
    Position& position = sequence.positions[static_cast<std::size_t>(sequence.done)];
    if (position.is_audio()) {
      std::copy(position.column.begin(), position.column.end(), last.begin() + 2 * books);
      position.column.clear();
      position.feedback = 2;
    }
    const Logits part = step(model.engine(), {{&sequence, 1}}, last.data()).front();
    got.insert(got.end(), part.begin(), part.end());
  }
  EXPECT(got == expected);
}

TEST("engine: a step that exceeds the limits is refused and changes nothing") {
  Model model("transformers");
  const EngineSpec& spec = model.spec();
  const Logits expected = whole(model, "transformers");
  Sequence sequence = golden_sequence("transformers");
  feed(model.engine(), sequence, {64});
  sequence.done = static_cast<std::int32_t>(sequence.positions.size()) - 3;
  const StepBatch good = [&] {
    StepBatch batch = build_batch({{&sequence, 3}}, spec);
    batch.logit_rows = {0, 1, 2};
    batch.sampler_rows = {0, 0, 0};
    return batch;
  }();
  const auto refused = [&](auto&& change, const std::string& part) {
    StepBatch batch = good;
    change(batch);
    StepOutput output;
    EXPECT_THROWS(model.engine().forward(batch, output), part);
  };
  refused([](StepBatch& b) { b.columns[5] = 32; }, "columns[5] in [0, 32), got 32");
  refused([](StepBatch& b) { b.columns.pop_back(); }, "columns of 8 ids");
  refused([](StepBatch& b) { b.ids[1] = 3; }, "ids[1] in [0, 3), got 3");
  refused([](StepBatch& b) { b.ids[1] = StepBatch::kFeedback; }, "last_columns");
  refused([](StepBatch& b) { b.slot[2] += 1; }, "slot[2]");
  refused([](StepBatch& b) { b.position[0] = 64; }, "position[0]");
  refused([](StepBatch& b) { b.context_length[0] = 65; }, "context_length[0]");
  refused([](StepBatch& b) { b.block_table[3] = -1; }, "block_table[3]");
  refused([](StepBatch& b) { b.sequence[0] = 1; }, "sequence[0]");
  refused([](StepBatch& b) { b.logit_rows[0] = 3; }, "logit_rows[0]");
  refused([](StepBatch& b) { b.num_text_rows = 1; }, "text_offset");
  refused([](StepBatch& b) { b.audio_offset[1] = 2; }, "audio_offset");
  refused([](StepBatch& b) { b.ids.assign(65, 0); }, "1..64 rows");
  refused([](StepBatch& b) { b.clear(); }, "1..64 rows");
  StepOutput output;
  model.engine().forward(good, output);
  const auto width = static_cast<std::size_t>(spec.num_codebooks * spec.codebook_vocab);
  const Logits last(output.logits, output.logits + 3 * width);
  EXPECT(std::equal(last.begin(), last.end(),
                    expected.end() - static_cast<std::ptrdiff_t>(3 * width)));
}

TEST("engine: factory fills the description and refuses what it cannot do") {
  Model model("original");
  const ModelInfo& info = model.loaded.info;
  EXPECT_EQ(info.layout, "original");
  EXPECT_EQ(info.weight_dtype, "bf16");
  EXPECT_EQ(info.num_layers, 3);
  EXPECT_EQ(info.num_kv_heads, 1);
  EXPECT_EQ(info.codebook_vocab, 32);
  EXPECT_EQ(info.kv_bytes, std::int64_t{48} * 4 * 16 * 4 * 2 * 3);
  const auto refused = [&](auto&& change, const std::string& part) {
    EngineConfig config;
    config.model_dir = golden_dir() + "original";
    change(config);
    EXPECT_THROWS(load_engine(config, *model.device, model.pool), part);
  };
  refused([](EngineConfig& c) { c.backend = "tensorrt"; }, "tensorrt");
  refused([](EngineConfig& c) { c.backend = "magic"; }, "expected native or tensorrt");
  refused([](EngineConfig& c) { c.max_positions = 131073; }, "[max_sequence] expected 1..131072");
  refused([](EngineConfig& c) { c.num_blocks = 2; }, "[num_blocks] expected at least 256");
  refused([](EngineConfig& c) { c.max_rows = 0; }, "[max_rows]");
  refused([](EngineConfig& c) { c.model_dir = "/nonexistent"; }, "/nonexistent/config.json");
  EngineConfig config;
  config.model_dir = golden_dir() + "original";
  const LoadedEngine usual = load_engine(config, *model.device, model.pool);
  EXPECT_EQ(usual.info.num_blocks, 32 * 1024 / 16);
}
