// One draw from one codebook's row of logits: temperature, top-k, top-p (specification 7). Shared
// by the CPU and the CUDA sampler. Weights are integers (portable_math.h), so the result is defined
// exactly, whatever the number of lanes that work on the row.
//
// Definition, for logits x, their maximum m, temperature T > 0:
//   weight  w[i] = round(exp((x[i] - m) / T) * kOne); where m is +inf, only its ids have weight
//   top-k   drops ids whose logit is below the k-th largest logit (ties with it stay)
//   top-p   orders what is left by descending logit, then ascending id, and keeps an id while the
//           weight before it is less than p times the total
//   draw    u in [0, 1) of 24 bits picks an id with probability w[i] / total of the kept ones
// T = 0 picks the largest logit, the lowest id among equals.
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "sampler/row_passes.h"

namespace higgs_rt {

struct RowFilter {
  float temperature = 1.0f;  // 0: greedy
  std::int32_t top_k = 0;    // 0: off
  float top_p = 1.0f;        // 1: off
};

inline constexpr std::int32_t kNoId = -1;  // a NaN, or no logit above -inf

// Ids are kept in their order until their weights sum to this.
HIGGS_HOST_DEVICE inline std::uint64_t top_p_goal(float top_p, std::uint64_t total) {
  const double limit = portable::mul(static_cast<double>(top_p), static_cast<double>(total));
  auto goal = static_cast<std::uint64_t>(limit);
  if (static_cast<double>(goal) < limit) ++goal;  // before < limit is before < goal
  return goal == 0 ? 1 : goal;
}

// Zeroes the weights that top-p drops; returns the weight that is left of `total`. Keys with
// weight lie in [low, high].
template <class Passes>
HIGGS_HOST_DEVICE inline std::uint64_t apply_top_p(Passes& passes, float top_p, std::uint64_t total,
                                                   std::int32_t low, std::int32_t high) {
  const std::uint64_t goal = top_p_goal(top_p, total);
  const std::int32_t threshold = passes.largest_with_weight(low, high, goal);
  const std::uint64_t above = threshold < high ? passes.weight_from(threshold + 1) : 0;
  const std::uint64_t at_threshold = passes.weight_from(threshold) - above;
  const std::uint32_t ties = passes.count_equal(threshold, 0);
  if (ties == 1) {  // as below, without the divisions
    passes.drop_below(threshold, 0);
    return above + at_threshold;
  }
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): an id with weight stands at the threshold
  const std::uint64_t each = at_threshold / ties;
  const std::uint64_t kept = (goal - above + each - 1) / each;
  if (kept >= ties) {
    passes.drop_below(threshold, 0);
    return above + at_threshold;
  }
  // Of equal logits the lowest ids stay: the largest cut of ids from the end that leaves `kept`.
  const std::int32_t cut = largest_reaching(0, passes.vocab(), kept, [&](std::int32_t ids) {
    return passes.count_equal(threshold, ids);
  });
  passes.drop_below(threshold, cut);
  return above + each * kept;
}

// Returns an id in [0, vocab) or kNoId. `random` is uniform in [0, 2^24). top_k is 0..vocab and
// top_p in (0, 1], as validate() ensures.
template <class Lanes>
HIGGS_HOST_DEVICE inline std::int32_t sample_row(Lanes lanes, const float* logits,
                                                 std::int32_t vocab, const RowFilter& filter,
                                                 std::uint32_t random, RowScratch scratch) {
  RowPasses<Lanes> passes(lanes, scratch, vocab);
  bool has_nan = false;
  const std::int32_t high = passes.load(logits, &has_nan);
  if (has_nan || high == portable::kKeyOfMinusInfinity) return kNoId;
  if (filter.temperature == 0.0f) return passes.first_equal(high);

  std::int32_t low = portable::kLowestKey;
  if (filter.top_k > 0 && filter.top_k < vocab) {
    low = largest_reaching(low, high, static_cast<std::uint64_t>(filter.top_k),
                           [&](std::int32_t key) { return passes.count_from(key); });
  }
  std::uint64_t total = passes.weigh(low, high, filter.temperature);
  if (filter.top_p < 1.0f) total = apply_top_p(passes, filter.top_p, total, low, high);
  return lanes.find(scratch.weights, vocab, (random * total) >> 24);
}

}  // namespace higgs_rt
