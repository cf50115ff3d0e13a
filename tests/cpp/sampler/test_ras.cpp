// Repetition-aware resampling (specification 7).
#include <array>
#include <limits>

#include "check.h"
#include "sampler/cpu/host_lanes.h"
#include "sampler/philox.h"
#include "sampler/plain_models.h"
#include "sampler/sample_row.h"
#include "sampler/sampler.h"
#include "sampler/statistics.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// One step on codebook 0 (the only live one of column 1) after a history of single-id columns.
std::int32_t first_sample(const SamplingParams& params, const std::vector<float>& logits,
                          const std::vector<std::int32_t>& history) {
  const auto sampler = make_cpu_sampler({1, 1, static_cast<std::int32_t>(logits.size())});
  sampler->open_row(0, params, history);
  const std::int32_t row = 0;
  sampler->enqueue(logits.data(), &row, 1);
  return sampler->last_columns()[0];
}

}  // namespace

// Window of 7 with column 0 in it: six columns of history still count.
TEST("RAS: counts within the window only, and resamples from the plain softmax") {
  const std::vector<float> logits = {2, 1, 0.5f, 0, -kInf, -kInf};  // BOS and EOS never
  SamplingParams params;
  params.temperature = 0;  // the candidate is always 0
  params.top_k = 1;        // must not apply to the resampling
  const auto counts_after = [&](const std::vector<std::int32_t>& history) {
    std::vector<double> counts(6, 0);
    for (params.seed = 0; params.seed < 20000; ++params.seed) {
      counts[static_cast<std::size_t>(first_sample(params, logits, history))] += 1;
    }
    return counts;
  };
  const auto never_replaced = [&](const std::vector<std::int32_t>& history) {
    return counts_after(history)[0] == 20000;
  };
  const std::vector<double> softmax = row_distribution(logits, 1.0, 0, 1.0);
  EXPECT(chi_square_p(counts_after({0, 0}), softmax) > kSmallestP);
  EXPECT(chi_square_p(counts_after({0, 3, 3, 3, 3, 0}), softmax) > kSmallestP);
  EXPECT(never_replaced({0}));                       // once
  EXPECT(never_replaced({1, 1, 1}));                 // another id
  EXPECT(never_replaced({0, 0, 1, 0, 3, 3, 3, 3}));  // two have left the window
  params.ras_max_repeat = 3;
  EXPECT(never_replaced({0, 0}));
  EXPECT(chi_square_p(counts_after({0, 0, 0}), softmax) > kSmallestP);
  params.ras_max_repeat = 1;
  params.ras_window = 0;
  EXPECT(never_replaced({0, 0, 0, 0}));  // off
}

// 6.3: the original counts EOS in the window, transformers does not.
TEST("RAS: BOS and EOS count under the first-EOS rule only") {
  const std::vector<float> logits = {0, 0, 0, 0.5f};  // EOS is the candidate
  const std::vector<std::int32_t> history = {3, 3, 3};
  SamplingParams params;
  params.temperature = 0;
  int kept[2] = {0, 0};
  for (const StreamRule rule : {StreamRule::kFirstEos, StreamRule::kTransformers}) {
    params.rule = rule;
    for (params.seed = 0; params.seed < 1000; ++params.seed) {
      kept[static_cast<int>(rule)] += first_sample(params, logits, history) == 3 ? 1 : 0;
    }
  }
  EXPECT(kept[0] > 200 && kept[0] < 500);  // softmax gives EOS 0.35
  EXPECT_EQ(kept[1], 1000);
}

// The window over long streams, wherever its ring stands: greedy candidates and a plain list.
TEST("RAS: equal to a plain model over long streams") {
  std::mt19937_64 random(9);
  for (int round = 0; round < 60; ++round) {
    constexpr std::int32_t kVocab = 8;
    SamplingParams params;
    params.temperature = 0;
    params.seed = random();
    params.ras_window = static_cast<std::int32_t>(1 + random() % kMaxRasWindow);
    params.ras_max_repeat = static_cast<std::int32_t>(1 + random() % 4);
    std::vector<std::int32_t> list(random() % 80);
    for (std::int32_t& id : list) id = static_cast<std::int32_t>(random() % kVocab);
    const auto sampler = make_cpu_sampler({1, 1, kVocab});
    sampler->open_row(0, params, list);
    list.push_back(kVocab - 2);
    for (std::uint32_t step = 1; step < 150; ++step) {
      std::vector<float> logits = random_logits(random, kVocab, 1);
      logits[kVocab - 1] = -kInf;
      auto id = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                          logits.begin());
      const auto reach = std::min(static_cast<std::ptrdiff_t>(list.size()),
                                  static_cast<std::ptrdiff_t>(params.ras_window));
      if (std::count(list.end() - reach, list.end(), id) >= params.ras_max_repeat) {
        std::array<std::int32_t, kVocab> keys;
        std::array<std::uint32_t, kVocab> weights;
        const std::uint32_t again = uniform_24_bits(params.seed, step, 0, Draw::kResample);
        id = sample_row(HostLanes{}, logits.data(), kVocab, RowFilter{}, again,
                        {keys.data(), weights.data()});
      }
      list.push_back(id);
      const std::int32_t row = 0;
      sampler->enqueue(logits.data(), &row, 1);
      EXPECT_EQ(sampler->last_columns()[0], id);
    }
  }
}
