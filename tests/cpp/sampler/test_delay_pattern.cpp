#include "sampler/delay_pattern.h"

#include "check.h"
#include "sampler/plain_models.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<std::int32_t> flat(const Columns& columns) {
  std::vector<std::int32_t> ids;
  for (const Column& column : columns) ids.insert(ids.end(), column.begin(), column.end());
  return ids;
}

struct PlainFrames {
  Columns frames;  // [n][K]
  std::int32_t dropped = 0;
};

// Frames first..last-1 of `columns`, those without BOS or EOS.
PlainFrames collect(const Columns& columns, std::int32_t count, std::int32_t size) {
  PlainFrames result;
  for (std::int32_t j = 0; j < count; ++j) {
    Column frame;
    for (std::size_t k = 0; k < columns[0].size(); ++k) {
      frame.push_back(columns.at(static_cast<std::size_t>(j) + k + 1).at(k));
    }
    if (*std::max_element(frame.begin(), frame.end()) < size) {
      result.frames.push_back(frame);
    } else {
      ++result.dropped;
    }
  }
  return result;
}

// First-EOS rule: complete frames j (column j + K exists) that are real (E > j + 1).
PlainFrames original_frames(const PlainStream& stream, std::int32_t size) {
  const auto codebooks = static_cast<std::int32_t>(stream.columns[0].size());
  std::int32_t count = static_cast<std::int32_t>(stream.columns.size()) - codebooks;
  if (stream.codebook0_end) count = std::min(count, *stream.codebook0_end - 1);
  return collect(stream.columns, std::max(count, 0), size);
}

// transformers' trim: from after the all-BOS column to before the first all-EOS column, reverted.
PlainFrames transformers_frames(const PlainStream& stream, std::int32_t size) {
  const auto codebooks = static_cast<std::int32_t>(stream.columns[0].size());
  const auto all_eos = std::find(stream.columns.begin(), stream.columns.end(),
                                 Column(stream.columns[0].size(), size + 1));
  const auto kept = static_cast<std::int32_t>(all_eos - stream.columns.begin()) - 1;
  return collect(stream.columns, std::max(kept - codebooks + 1, 0), size);
}

void expect_frames(const PlainStream& stream, const PlainFrames& expected, std::int32_t size) {
  const auto codebooks = static_cast<std::int32_t>(stream.columns[0].size());
  FrameAssembler assembler(codebooks, size);
  Columns frames;
  for (std::size_t c = 0; c < stream.columns.size(); ++c) {
    const bool ended = stream.ended && c + 1 == stream.columns.size();
    const std::int32_t seen = assembler.num_frames() + assembler.num_dropped();
    if (assembler.push(stream.columns[c], ended)) {
      frames.emplace_back(assembler.frame().begin(), assembler.frame().end());
    }
    // A frame never waits longer than its last code.
    const bool due = static_cast<std::int32_t>(c) >= codebooks && !ended;
    EXPECT_EQ(assembler.num_frames() + assembler.num_dropped(), seen + (due ? 1 : 0));
  }
  EXPECT(frames == expected.frames);
  EXPECT_EQ(assembler.num_dropped(), expected.dropped);

  const RevertedFrames whole = revert_delay(flat(stream.columns), codebooks, size, stream.ended);
  EXPECT_EQ(whole.num_frames, static_cast<std::int32_t>(frames.size()));
  EXPECT_EQ(whole.num_dropped, expected.dropped);
  bool same = whole.codes.size() == frames.size() * static_cast<std::size_t>(codebooks);
  for (std::size_t j = 0; same && j < frames.size(); ++j) {
    for (std::size_t k = 0; k < frames[j].size(); ++k) {
      same = same && whole.codes[k * frames.size() + j] == frames[j][k];
    }
  }
  EXPECT(same);
}

}  // namespace

TEST("delay pattern: the example of specification 5") {
  std::vector<std::int32_t> codes;
  for (std::int32_t k = 0; k < 8; ++k) {
    for (std::int32_t j = 0; j < 3; ++j) codes.push_back(10 * k + j);
  }
  constexpr std::int32_t B = 80;
  constexpr std::int32_t E = 81;
  const Columns expected = {
      {B, B, B, B, B, B, B, B},    {0, B, B, B, B, B, B, B},    {1, 10, B, B, B, B, B, B},
      {2, 11, 20, B, B, B, B, B},  {E, 12, 21, 30, B, B, B, B}, {E, E, 22, 31, 40, B, B, B},
      {E, E, E, 32, 41, 50, B, B}, {E, E, E, E, 42, 51, 60, B}, {E, E, E, E, E, 52, 61, 70},
      {E, E, E, E, E, E, 62, 71},  {E, E, E, E, E, E, E, 72},   {E, E, E, E, E, E, E, E}};
  EXPECT(apply_delay(codes, 8, 80) == flat(expected));
  EXPECT(revert_delay(flat(expected), 8, 80, true).codes == codes);
}

TEST("delay pattern: round trips for any number of codebooks and frames") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    const auto codebooks = static_cast<std::int32_t>(1 + random() % 16);
    const std::size_t frames = random() % 20;
    std::vector<std::int32_t> codes(frames * static_cast<std::size_t>(codebooks));
    for (std::int32_t& code : codes) code = static_cast<std::int32_t>(random() % 1024);
    const std::vector<std::int32_t> columns = apply_delay(codes, codebooks, 1024);
    EXPECT_EQ(columns.size(), (frames + static_cast<std::size_t>(codebooks) + 1) *
                                  static_cast<std::size_t>(codebooks));
    const RevertedFrames back = revert_delay(columns, codebooks, 1024, true);
    EXPECT(back.codes == codes);
    EXPECT_EQ(back.num_dropped, 0);
  }
}

TEST("delay pattern: streaming equals the plain trim on 1,000 random streams of each rule") {
  int dropped = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::int32_t codebooks = seed % 3 != 0 ? 8 : static_cast<std::int32_t>(1 + seed / 3 % 16);
    const PlainStream original =
        original_stream(wild_source(seed, codebooks, 12), codebooks, 12, 70);
    const PlainFrames first = original_frames(original, 10);
    expect_frames(original, first, 10);
    const PlainStream masked =
        transformers_stream(wild_source(seed, codebooks, 12), codebooks, 12, 70);
    const PlainFrames second = transformers_frames(masked, 10);
    expect_frames(masked, second, 10);
    dropped += first.dropped + second.dropped;
  }
  EXPECT(dropped > 100);  // misbehaving codebooks were met
}

TEST("delay pattern: a length stop keeps every complete frame") {
  const PlainStream stream =
      original_stream([](std::int32_t c) { return Column(8, c % 10); }, 8, 12, 30);
  EXPECT(!stream.ended);
  EXPECT_EQ(revert_delay(flat(stream.columns), 8, 10, false).num_frames, 30 - 8);
}

TEST("delay pattern: the shortest stream holds no frame") {
  const auto at_once = [](std::int32_t) { return Column(8, 11); };
  const PlainStream stream = original_stream(at_once, 8, 12, 30);
  EXPECT_EQ(stream.columns.size(), std::size_t{9});
  EXPECT_EQ(revert_delay(flat(stream.columns), 8, 10, true).num_frames, 0);
  EXPECT(apply_delay({}, 8, 10).size() == 72);
}

TEST("delay pattern: errors name what is wrong") {
  const std::vector<std::int32_t> bad = {1, 2, 10, 4};
  EXPECT_THROWS(apply_delay(bad, 2, 10), "got 10 in codebook 1, frame 0");
  EXPECT_THROWS(apply_delay(bad, 3, 10), "expected codes [3, T], got 4 ids");
  EXPECT_THROWS(apply_delay(bad, 0, 10), "num_codebooks");
  FrameAssembler assembler(2, 10);
  EXPECT_THROWS(assembler.push(std::vector<std::int32_t>{1, 2, 3}, false),
                "column of 2 ids, got 3");
  EXPECT_THROWS(assembler.push(std::vector<std::int32_t>{1, 12}, false), "[0, 12), got 12");
  EXPECT_THROWS(assembler.push(std::vector<std::int32_t>{-1, 1}, false), "got -1");
  EXPECT_EQ(assembler.num_columns(), 0);
  assembler.push(std::vector<std::int32_t>{11, 11}, true);
  EXPECT_THROWS(assembler.push(std::vector<std::int32_t>{1, 1}, false), "after the end");
}
