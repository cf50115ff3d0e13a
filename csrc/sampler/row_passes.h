// Passes over one row of logits, written once for any group of lanes that shares the row: lane
// `index` of `kCount` takes ids index, index + kCount, … A group offers
//   static constexpr int kCount; int index();
//   sum(u32), sum(u64), max(i32), min(i32): the same result in every lane
//   find(weights, vocab, target): the first id, in the order (id % kDrawLanes, id / kDrawLanes), up
//     to which the weights sum to more than `target`; `target` is below their total
#pragma once

#include <cstdint>

#include "core/host_device.h"
#include "sampler/portable_math.h"

namespace higgs_rt {

// The order of the draw is the one in which a warp finds the id fastest: lanes sum their own ids,
// and one of them looks on.
inline constexpr std::int32_t kDrawLanes = 32;

// `vocab` entries each; a lane touches its own entries only.
struct RowScratch {
  std::int32_t* keys;
  std::uint32_t* weights;
};

// Weight of the id with `key` at `temperature` > 0; definition in sample_row.h.
HIGGS_HOST_DEVICE inline std::uint32_t weight_of(std::int32_t key, std::int32_t largest,
                                                 float temperature) {
  const float difference = portable::add(portable::value_of(key), -portable::value_of(largest));
  // Division by 1 changes nothing; the plain draws of RAS go without it.
  const float scaled = temperature == 1.0f ? difference : portable::div(difference, temperature);
  const std::uint32_t weight = portable::exp_weight(scaled);
  return key == largest ? portable::kOne : weight;  // inf - inf counts as 0
}

// Largest t in [low, high] with measure(t) >= goal, for a measure that does not grow with t and
// that reaches the goal at `low`. Thresholds are found by halving the range of the integer keys:
// no sorting, and about the same number of passes for every row.
template <class Measure>
HIGGS_HOST_DEVICE inline std::int32_t largest_reaching(std::int32_t low, std::int32_t high,
                                                       std::uint64_t goal, Measure measure) {
  while (low < high) {
    const std::uint32_t span = static_cast<std::uint32_t>(high) - static_cast<std::uint32_t>(low);
    const auto middle =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(low) + span / 2 + span % 2);
    if (measure(middle) >= goal) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <class Lanes>
class RowPasses {
 public:
  HIGGS_HOST_DEVICE RowPasses(Lanes lanes, RowScratch scratch, std::int32_t vocab)
      : lanes_(lanes), keys_(scratch.keys), weights_(scratch.weights), vocab_(vocab) {}

  HIGGS_HOST_DEVICE std::int32_t vocab() const { return vocab_; }

  // Fills the keys and returns the largest.
  HIGGS_HOST_DEVICE std::int32_t load(const float* logits, bool* has_nan) {
    std::int32_t largest = portable::kLowestKey;
    std::int32_t nan = 0;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      const float value = logits[i];
      const std::int32_t key = portable::key_of(value);
      keys_[i] = key;
      nan |= portable::is_nan(value);
      largest = key > largest ? key : largest;
    }
    *has_nan = lanes_.max(nan) != 0;
    return lanes_.max(largest);
  }

  HIGGS_HOST_DEVICE std::int32_t first_equal(std::int32_t key) {
    std::int32_t first = vocab_;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      const std::int32_t here = keys_[i] == key ? i : vocab_;
      first = here < first ? here : first;
    }
    return lanes_.min(first);
  }

  // Number of keys >= `key`.
  HIGGS_HOST_DEVICE std::uint32_t count_from(std::int32_t key) {
    std::uint32_t count = 0;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      count += keys_[i] >= key ? 1u : 0u;
    }
    return lanes_.sum(count);
  }

  // Number of ids with `key`, the last `cut` ids left out.
  HIGGS_HOST_DEVICE std::uint32_t count_equal(std::int32_t key, std::int32_t cut) {
    const std::int32_t end = vocab_ - cut;
    std::uint32_t count = 0;
    for (std::int32_t i = lanes_.index(); i < end; i += Lanes::kCount) {
      count += keys_[i] == key ? 1u : 0u;
    }
    return lanes_.sum(count);
  }

  // Weight of the ids whose key is >= `key`.
  HIGGS_HOST_DEVICE std::uint64_t weight_from(std::int32_t key) {
    std::uint64_t sum = 0;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      const std::uint32_t weight = weights_[i];  // loaded always: no branch, vector code
      sum += keys_[i] >= key ? weight : 0u;
    }
    return lanes_.sum(sum);
  }

  // Largest key in [low, high] from which on the weights sum to at least `goal`.
  HIGGS_HOST_DEVICE std::int32_t largest_with_weight(std::int32_t low, std::int32_t high,
                                                     std::uint64_t goal) {
    return largest_reaching(low, high, goal, [&](std::int32_t key) { return weight_from(key); });
  }

  // Fills the weights, 0 for keys below `lowest`; returns their sum.
  HIGGS_HOST_DEVICE std::uint64_t weigh(std::int32_t lowest, std::int32_t largest,
                                        float temperature) {
    std::uint64_t sum = 0;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      const std::uint32_t weight = weight_of(keys_[i], largest, temperature);
      weights_[i] = keys_[i] >= lowest ? weight : 0u;
      sum += weights_[i];
    }
    return lanes_.sum(sum);
  }

  // Zeroes the weights of keys below `key`, and of the last `cut` ids where they equal it.
  HIGGS_HOST_DEVICE void drop_below(std::int32_t key, std::int32_t cut) {
    const std::int32_t end = vocab_ - cut;
    for (std::int32_t i = lanes_.index(); i < vocab_; i += Lanes::kCount) {
      const bool keep = keys_[i] > key || (keys_[i] == key && i < end);
      const std::uint32_t weight = weights_[i];
      weights_[i] = keep ? weight : 0u;
    }
  }

 private:
  Lanes lanes_;
  std::int32_t* keys_;
  std::uint32_t* weights_;
  std::int32_t vocab_;
};

}  // namespace higgs_rt
