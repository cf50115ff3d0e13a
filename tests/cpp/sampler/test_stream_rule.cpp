#include "check.h"
#include "sampler/plain_models.h"
#include "sampler/sampler.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Runs the CPU sampler, greedy and without RAS, on logits whose largest entries are what `sampled`
// says: the sampler's columns then depend on the stream rule alone.
template <class Source>
PlainStream sampler_stream(Source sampled, StreamRule rule, std::int32_t codebooks,
                           std::int32_t vocab, std::int32_t max_columns) {
  const auto sampler = make_cpu_sampler({1, codebooks, vocab});
  SamplingParams params;
  params.temperature = 0;
  params.ras_window = 0;
  params.rule = rule;
  sampler->open_row(0, params, {});
  PlainStream stream;
  const auto keep_last = [&] {
    stream.columns.emplace_back(sampler->last_columns(), sampler->last_columns() + codebooks);
  };
  keep_last();
  const std::int32_t row = 0;
  Column column(static_cast<std::size_t>(codebooks));
  while (!stream.ended && static_cast<std::int32_t>(stream.columns.size()) < max_columns) {
    const Column ids = sampled(static_cast<std::int32_t>(stream.columns.size()));
    std::vector<float> logits(static_cast<std::size_t>(codebooks) *
                              static_cast<std::size_t>(vocab));
    for (std::size_t k = 0; k < ids.size(); ++k) {
      logits[k * static_cast<std::size_t>(vocab) + static_cast<std::size_t>(ids[k])] = 1;
    }
    sampler->advance(logits.data(), {&row, 1});
    SampledRow flags;
    sampler->fetch(column, {&flags, 1});
    keep_last();
    EXPECT(column == stream.columns.back());
    EXPECT(!flags.failed);
    stream.ended = flags.finished;
  }
  return stream;
}

void compare_on_random_streams(StreamRule rule) {
  int ended = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::int32_t codebooks = seed % 4 != 0 ? 8 : static_cast<std::int32_t>(1 + seed / 4 % 16);
    const std::int32_t vocab = 12;
    // Column 0 is synthetic under one rule and a forced sample under the other: the source is
    // indexed by column, so both models see the same samples.
    Columns wishes;
    WildSource source = wild_source(seed, codebooks, vocab);
    for (std::int32_t c = 0; c < 70; ++c) wishes.push_back(source(c));
    const auto sampled = [&](std::int32_t c) { return wishes[static_cast<std::size_t>(c)]; };
    const PlainStream expected = rule == StreamRule::kFirstEos
                                     ? original_stream(sampled, codebooks, vocab, 70)
                                     : transformers_stream(sampled, codebooks, vocab, 70);
    const PlainStream got = sampler_stream(sampled, rule, codebooks, vocab, 70);
    EXPECT(got.columns == expected.columns);
    EXPECT_EQ(got.ended, expected.ended);
    ended += expected.ended ? 1 : 0;
  }
  EXPECT(ended > 500 && ended < 1000);  // both kinds of end were met
}

// Codes "kj" of specification 5 and 6.2 as ids 10 * k + j; 80 is BOS and 81 EOS.
constexpr std::int32_t kB = 80;
constexpr std::int32_t kE = 81;

}  // namespace

TEST("stream rule: first EOS equals the plain model on 1,000 random streams") {
  compare_on_random_streams(StreamRule::kFirstEos);
}

TEST("stream rule: transformers equals the plain model on 1,000 random streams") {
  compare_on_random_streams(StreamRule::kTransformers);
}

TEST("stream rule: the worked trace of specification 6.2") {
  // Codebook k's code of frame j is sampled in column j + k + 1 and EOS in column k + 3.
  const auto sampled = [](std::int32_t column) {
    Column ids(8);
    for (std::int32_t k = 0; k < 8; ++k) {
      const std::int32_t frame = column - k - 1;
      ids[static_cast<std::size_t>(k)] =
          frame == 2 ? kE : 10 * k + (frame >= 0 && frame < 2 ? frame : 9);
    }
    return ids;
  };
  const Columns expected = {{kB, kB, kB, kB, kB, kB, kB, kB}, {0, kB, kB, kB, kB, kB, kB, kB},
                            {1, 10, kB, kB, kB, kB, kB, kB},  {kE, 11, 20, kB, kB, kB, kB, kB},
                            {kE, kE, 21, 30, kB, kB, kB, kB}, {kE, kE, kE, 31, 40, kB, kB, kB},
                            {kE, kE, kE, kE, 41, 50, kB, kB}, {kE, kE, kE, kE, kE, 51, 60, kB},
                            {kE, kE, kE, kE, kE, kE, 61, 70}, {kE, kE, kE, kE, kE, kE, kE, 71},
                            {kE, kE, kE, kE, kE, kE, kE, kE}};
  for (const StreamRule rule : {StreamRule::kFirstEos, StreamRule::kTransformers}) {
    const PlainStream got = sampler_stream(sampled, rule, 8, 82, 50);
    EXPECT(got.columns == expected);
    EXPECT(got.ended);
  }
}

TEST(
    "stream rule: an EOS in the last codebook ends at once, one in the first sample gives 9 "
    "columns") {
  const auto last = [](std::int32_t column) {
    Column ids(8, 5);
    if (column == 12) ids[7] = kE;
    return ids;
  };
  PlainStream got = sampler_stream(last, StreamRule::kFirstEos, 8, 82, 50);
  EXPECT(got.ended);
  EXPECT_EQ(got.columns.size(), std::size_t{13});
  EXPECT(got.columns.back() == Column(8, kE));

  const auto first = [](std::int32_t column) { return Column(8, column == 1 ? kE : 5); };
  got = sampler_stream(first, StreamRule::kFirstEos, 8, 82, 50);
  EXPECT(got.ended);
  EXPECT_EQ(got.columns.size(), std::size_t{9});
}

TEST("stream rule: an ended row stays as it is") {
  const auto sampler = make_cpu_sampler({1, 1, 4});
  SamplingParams params;
  params.temperature = 0;
  sampler->open_row(0, params, {});
  const std::int32_t row = 0;
  std::int32_t id = 0;
  SampledRow flags;
  const std::vector<float> end = {0, 0, 0, 1};
  const std::vector<float> more = {0, 1, 0, 0};
  sampler->advance(end.data(), {&row, 1});
  sampler->advance(more.data(), {&row, 1});
  sampler->fetch({&id, 1}, {&flags, 1});
  sampler->fetch({&id, 1}, {&flags, 1});
  EXPECT_EQ(id, 3);
  EXPECT(flags.finished);
}
