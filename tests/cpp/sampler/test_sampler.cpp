#include "sampler/sampler.h"

#include <limits>

#include "check.h"
#include "sampler/cpu/host_lanes.h"
#include "sampler/philox.h"
#include "sampler/plain_models.h"
#include "sampler/sample_row.h"
#include "sampler/statistics.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Columns of a stream that never ends: `steps` of all codebooks live, the same logits
// [codebooks, vocab] every time. EOS must be -inf in them.
Columns endless_columns(const std::vector<float>& logits, const SamplingParams& params,
                        std::int32_t codebooks, int steps) {
  const auto vocab = static_cast<std::int32_t>(logits.size()) / codebooks;
  const auto sampler = make_cpu_sampler({1, codebooks, vocab});
  sampler->open_row(0, params, {});
  const std::int32_t row = 0;
  Columns columns;
  for (int step = 0; step < steps + codebooks; ++step) {
    sampler->enqueue(logits.data(), &row, 1);
    if (step >= codebooks) {
      columns.emplace_back(sampler->last_columns(), sampler->last_columns() + codebooks);
    }
  }
  return columns;
}

// 12,500 columns of 8 codebooks: 100,000 draws against the analytic distribution of each codebook.
void expect_distribution(float temperature, std::int32_t top_k, float top_p, bool ties) {
  constexpr std::int32_t kVocab = 24;
  std::mt19937_64 random(17);
  std::vector<float> logits = random_logits(random, 8 * kVocab, 1.5f);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (ties) logits[i] = std::round(logits[i]);
    if (i % kVocab == kVocab - 1) logits[i] = -kInf;
  }
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.ras_window = 0;
  params.seed = 2026;
  const Columns columns = endless_columns(logits, params, 8, 12500);
  for (std::size_t k = 0; k < 8; ++k) {
    std::vector<double> counts(kVocab, 0);
    for (const Column& column : columns) counts[static_cast<std::size_t>(column[k])] += 1;
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(k * kVocab);
    const std::vector<float> row(begin, begin + kVocab);
    const double p = chi_square_p(counts, row_distribution(row, temperature, top_k, top_p));
    EXPECT(p > kSmallestP);
  }
}

}  // namespace

TEST("sampler: temperature alone") {
  expect_distribution(0.7f, 0, 1.0f, false);
  expect_distribution(1.0f, 0, 1.0f, false);
  expect_distribution(2.5f, 0, 1.0f, false);
}
TEST("sampler: top-k alone") {
  expect_distribution(1.0f, 1, 1.0f, false);
  expect_distribution(1.0f, 5, 1.0f, false);
  expect_distribution(1.0f, 5, 1.0f, true);
}
TEST("sampler: top-p alone") {
  expect_distribution(1.0f, 0, 0.95f, false);
  expect_distribution(1.0f, 0, 0.4f, false);
  expect_distribution(1.0f, 0, 0.8f, true);
}
TEST("sampler: temperature, top-k and top-p together") {
  expect_distribution(0.7f, 10, 0.9f, false);
  expect_distribution(1.4f, 6, 0.7f, true);
}

TEST("sampler: draws of codebooks, steps and seeds are independent") {
  constexpr std::int32_t kVocab = 6;  // 4 ids and BOS, all equally likely; EOS never
  std::vector<float> logits(8 * kVocab, 0.0f);
  for (std::size_t k = 0; k < 8; ++k) logits[k * kVocab + kVocab - 1] = -kInf;
  SamplingParams params;
  params.ras_window = 0;
  params.top_p = 1;
  const Columns columns = endless_columns(logits, params, 8, 10000);
  params.seed = 1;
  const Columns others = endless_columns(logits, params, 8, 10000);
  const auto pairs = [&](const Columns& left, std::size_t k, const Columns& right,
                         std::size_t other, std::size_t lag) {
    std::vector<std::vector<double>> table(kVocab - 1, std::vector<double>(kVocab - 1, 0));
    for (std::size_t c = 0; c + lag < left.size(); ++c) {
      table[static_cast<std::size_t>(left[c][k])]
           [static_cast<std::size_t>(right[c + lag][other])] += 1;
    }
    return independence_p(table);
  };
  for (std::size_t k = 0; k < 8; ++k) {
    EXPECT(pairs(columns, k, columns, (k + 1) % 8, 0) > kSmallestP);
    EXPECT(pairs(columns, k, columns, k, 1) > kSmallestP);
    EXPECT(pairs(columns, k, columns, (k + 3) % 8, 2) > kSmallestP);
    EXPECT(pairs(columns, k, others, k, 0) > kSmallestP);
  }
}

// A request alone, and the same request among others that come and go, in another row each time.
TEST("sampler: columns do not depend on the row or on the batch") {
  constexpr std::int32_t kCodebooks = 8;
  constexpr std::int32_t kVocab = 40;
  constexpr std::int32_t kRows = 6;
  constexpr std::size_t kSize = std::size_t{kCodebooks} * kVocab;
  std::mt19937_64 random(23);
  for (int round = 0; round < 30; ++round) {
    SamplingParams params;
    params.seed = random();
    params.top_k = static_cast<std::int32_t>(random() % 20);
    params.rule = static_cast<StreamRule>(random() % 2);
    std::vector<std::vector<float>> logits;
    for (int step = 0; step < 40; ++step) logits.push_back(random_logits(random, kSize, 2));
    const auto alone = make_cpu_sampler({1, kCodebooks, kVocab});
    const auto crowd = make_cpu_sampler({kRows, kCodebooks, kVocab});
    const auto mine = static_cast<std::int32_t>(random() % kRows);
    alone->open_row(0, params, {});
    for (std::int32_t row = 0; row < kRows; ++row) crowd->open_row(row, {}, {});
    crowd->open_row(mine, params, {});
    for (const std::vector<float>& own : logits) {
      const std::int32_t zero = 0;
      alone->enqueue(own.data(), &zero, 1);
      std::vector<std::int32_t> rows(kRows);
      std::iota(rows.begin(), rows.end(), 0);
      std::shuffle(rows.begin(), rows.end(), random);
      rows.resize(1 + random() % kRows);
      if (std::find(rows.begin(), rows.end(), mine) == rows.end()) rows[0] = mine;
      std::vector<float> all;
      for (const std::int32_t row : rows) {
        if (row != mine && random() % 4 == 0) crowd->open_row(row, {}, {});
        const std::vector<float> other = random_logits(random, kSize, 2);
        const std::vector<float>& chosen = row == mine ? own : other;
        all.insert(all.end(), chosen.begin(), chosen.end());
      }
      crowd->enqueue(all.data(), rows.data(), static_cast<std::int32_t>(rows.size()));
      const std::int32_t* expected = alone->last_columns();
      const std::int32_t* got = crowd->last_columns() + std::ptrdiff_t{mine} * kCodebooks;
      EXPECT(std::equal(expected, expected + kCodebooks, got));
    }
  }
}

// The CPU sampler picks code for the processor it runs on; this file is compiled for the oldest
// one.
TEST("sampler: the processor's vector code gives the ids of the plain build") {
  std::mt19937_64 random(31);
  const auto sampler = make_cpu_sampler({1, 1, 1026});
  std::vector<std::int32_t> keys(1026);
  std::vector<std::uint32_t> weights(1026);
  for (int round = 0; round < 3000; ++round) {
    SamplingParams params;
    params.seed = random();
    params.temperature = 0.1f * static_cast<float>(random() % 20);
    params.top_k = static_cast<std::int32_t>(random() % 100);
    params.top_p = 0.01f * static_cast<float>(1 + random() % 100);
    params.ras_window = 0;
    const std::vector<float> logits = random_logits(random, 1026, 3);
    const std::int32_t row = 0;
    sampler->open_row(0, params, {});
    sampler->enqueue(logits.data(), &row, 1);
    const std::int32_t expected = sample_row(
        HostLanes{}, logits.data(), 1026, {params.temperature, params.top_k, params.top_p},
        uniform_24_bits(params.seed, 1, 0, Draw::kCandidate), {keys.data(), weights.data()});
    EXPECT_EQ(sampler->last_columns()[0], expected);
  }
}

TEST("sampler: unusable logits fail their own row only") {
  const auto sampler = make_cpu_sampler({2, 2, 5});
  for (std::int32_t row : {0, 1}) sampler->open_row(row, {}, {});
  std::vector<float> logits(20, 0.0f);
  logits[2] = std::numeric_limits<float>::quiet_NaN();   // row 1, codebook 0
  logits[15] = std::numeric_limits<float>::quiet_NaN();  // row 0, codebook 1: not yet sampled
  for (std::size_t i : {14u, 19u}) logits[i] = -kInf;
  const std::vector<std::int32_t> rows = {1, 0};
  sampler->advance(logits.data(), rows);
  std::vector<std::int32_t> columns(4);
  std::vector<SampledRow> flags(2);
  sampler->fetch(columns, flags);
  EXPECT(flags[0].failed && flags[0].finished);
  EXPECT(columns[0] == 4 && columns[1] == 4);
  EXPECT(!flags[1].failed && !flags[1].finished);
  EXPECT_EQ(columns[3], 3);
}

TEST("sampler: bad parameters name field, value and limit") {
  const auto message = [](auto change) {
    SamplingParams params;
    change(params);
    return thrown([&] { validate(params, 1026); });
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  using P = SamplingParams;
  EXPECT_EQ(message([](P&) {}), "");
  EXPECT_EQ(message([](P& p) { p.temperature = -1; }),
            "[sampling] expected temperature in [0, 100], got -1");
  EXPECT_EQ(message([](P& p) { p.temperature = 101; }),
            "[sampling] expected temperature in [0, 100], got 101");
  EXPECT_EQ(message([&](P& p) { p.temperature = nan; }),
            "[sampling] expected temperature in [0, 100], got nan");
  EXPECT_EQ(message([](P& p) { p.top_k = -1; }), "[sampling] expected top_k in [0, 1026], got -1");
  EXPECT_EQ(message([](P& p) { p.top_k = 1027; }),
            "[sampling] expected top_k in [0, 1026], got 1027");
  EXPECT_EQ(message([](P& p) { p.top_p = 0; }), "[sampling] expected top_p in (0, 1], got 0");
  EXPECT_EQ(message([](P& p) { p.top_p = 1.5f; }), "[sampling] expected top_p in (0, 1], got 1.5");
  EXPECT_EQ(message([&](P& p) { p.top_p = nan; }), "[sampling] expected top_p in (0, 1], got nan");
  EXPECT_EQ(message([](P& p) { p.ras_window = 65; }),
            "[sampling] expected ras_window in [0, 64], got 65");
  EXPECT_EQ(message([](P& p) { p.ras_window = -1; }),
            "[sampling] expected ras_window in [0, 64], got -1");
  EXPECT_EQ(message([](P& p) { p.ras_max_repeat = 0; }),
            "[sampling] expected ras_max_repeat >= 1, got 0");
  EXPECT_EQ(message([](P& p) { p.rule = static_cast<StreamRule>(2); }),
            "[sampling] expected rule kFirstEos (0) or kTransformers (1), got 2");
}

TEST("sampler: misuse is refused") {
  EXPECT_THROWS(make_cpu_sampler({0, 8, 1026}), "expected max_rows >= 1, got 0");
  EXPECT_THROWS(make_cpu_sampler({1, 17, 1026}), "expected num_codebooks in [1, 16], got 17");
  EXPECT_THROWS(make_cpu_sampler({1, 8, 4097}), "expected codebook_vocab in [3, 4096], got 4097");
  const auto sampler = make_cpu_sampler({2, 2, 5});
  const std::vector<float> logits(40, 0.0f);
  const auto advance = [&](std::vector<std::int32_t> rows) {
    sampler->advance(logits.data(), rows);
  };
  EXPECT_THROWS(advance({0}), "row 0, which was never opened");
  EXPECT_THROWS(sampler->open_row(2, {}, {}), "expected row in [0, 2), got 2");
  EXPECT_THROWS(sampler->open_row(0, {}, std::vector<std::int32_t>{1}), "whole columns of 2 ids");
  EXPECT_THROWS(sampler->open_row(0, {}, std::vector<std::int32_t>{1, 5}), "in [0, 5), got 5");
  SamplingParams params;
  params.top_k = 6;
  EXPECT_THROWS(sampler->open_row(0, params, {}), "expected top_k in [0, 5], got 6");
  EXPECT_THROWS(advance({0}), "never opened");  // the refused open changed nothing
  sampler->open_row(0, {}, {});
  EXPECT_THROWS(advance({0, 0}), "row 0 twice");
  EXPECT_THROWS(advance({-1}), "got -1");
  advance({0});
  std::vector<std::int32_t> columns(4);
  std::vector<SampledRow> flags(1);
  EXPECT_THROWS(sampler->fetch(columns, flags), "expected room for 2 ids, got 4");
  advance({0});
  EXPECT_THROWS(advance({0}), "at most 2 steps that wait to be fetched");
  columns.resize(2);
  sampler->fetch(columns, flags);
  advance({0});
}

TEST("sampler: a step is fetched as it was, however many came after it") {
  const auto direct = make_cpu_sampler({3, 2, 5});
  const auto late = make_cpu_sampler({3, 2, 5});
  for (Sampler* sampler : {direct.get(), late.get()}) {
    for (std::int32_t row : {0, 1, 2}) sampler->open_row(row, {}, {});
  }
  std::mt19937_64 random(7);
  std::vector<std::vector<std::int32_t>> expected;
  const auto fetched = [](Sampler& sampler, std::size_t rows) {
    std::vector<std::int32_t> columns(rows * 2);
    std::vector<SampledRow> flags(rows);
    sampler.fetch(columns, flags);
    for (const SampledRow flag : flags) columns.push_back(flag.finished ? 1 : 0);
    return columns;
  };
  const std::vector<std::vector<std::int32_t>> steps = {{0, 2}, {1}, {2, 1, 0}, {0}, {}, {1, 2}};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::vector<float> logits = random_logits(random, 10 * 5, 2);
    direct->advance(logits.data(), steps[i]);
    expected.push_back(fetched(*direct, steps[i].size()));
    std::vector<std::int32_t> padded = steps[i];  // the two halves, with rows that are none
    padded.resize(5, -1);
    late->enqueue(logits.data(), padded.data(), 5);
    late->deliver(steps[i]);
    if (i > 0) EXPECT(fetched(*late, steps[i - 1].size()) == expected[i - 1]);
  }
  EXPECT(fetched(*late, steps.back().size()) == expected.back());
}

TEST("sampler: made by the kind of device") {
  const auto device = make_cpu_device();
  EXPECT(make_sampler({1, 8, 1026}, *device) != nullptr);
}
