// sample_row() by one warp with the row in registers, for vocabularies of up to kMaxRegisterVocab
// ids. The same ids as sample_row(): its arithmetic on weights is exact, so only the way to the
// thresholds differs.
#pragma once

#include "sampler/cuda/kernels/warp_lanes.cuh"
#include "sampler/sample_row.h"

namespace higgs_rt {

inline constexpr std::int32_t kMaxRegisterVocab = 1056;

// Keys and weights of N ids a lane, the lane's and the lanes' order that of the draw
// (row_passes.h). No id: kLowestKey and no weight; no number has that key.
template <int N>
struct RegisterRow {
  std::int32_t key[N];
  std::uint32_t weight[N];
  std::int32_t id[N];
  WarpLanes lanes;

  __device__ __forceinline__ std::uint32_t count_from(std::int32_t from) const {
    std::uint32_t count = 0;
#pragma unroll
    for (int s = 0; s < N; ++s) count += key[s] >= from ? 1u : 0u;
    return lanes.sum(count);
  }
  __device__ __forceinline__ std::uint64_t weight_from(std::int32_t from) const {
    std::uint64_t sum = 0;
#pragma unroll
    for (int s = 0; s < N; ++s) sum += key[s] >= from ? weight[s] : 0u;
    return lanes.sum(sum);
  }
  __device__ __forceinline__ std::int32_t vocab() const {
    return kMaxRegisterVocab;
  }  // no id is as high
  __device__ __forceinline__ std::uint32_t count_equal(std::int32_t equal, std::int32_t cut) const {
    std::uint32_t count = 0;
#pragma unroll
    for (int s = 0; s < N; ++s) count += key[s] == equal && id[s] < vocab() - cut ? 1u : 0u;
    return lanes.sum(count);
  }
  __device__ __forceinline__ void drop_below(std::int32_t lowest, std::int32_t cut) {
#pragma unroll
    for (int s = 0; s < N; ++s) {
      const bool keep = key[s] > lowest || (key[s] == lowest && id[s] < vocab() - cut);
      weight[s] = keep ? weight[s] : 0u;
    }
  }
  __device__ __forceinline__ std::int32_t first_equal(std::int32_t equal) const {
    std::int32_t first = vocab();
#pragma unroll
    for (int s = 0; s < N; ++s) first = min(first, key[s] == equal ? id[s] : vocab());
    return lanes.min(first);
  }
  __device__ __forceinline__ std::uint64_t weigh(std::int32_t lowest, std::int32_t largest,
                                                 float temperature) {
    std::uint64_t sum = 0;
#pragma unroll
    for (int s = 0; s < N; ++s) {
      const std::uint32_t value = weight_of(key[s], largest, temperature);
      weight[s] = key[s] >= lowest && key[s] != portable::kLowestKey ? value : 0u;
      sum += weight[s];
    }
    return lanes.sum(sum);
  }
  // Largest key in [low, high] for which measure(key) >= goal (row_passes.h, largest_reaching). The
  // measure changes at keys of the row only, so the ends of the range move on to them.
  template <class Measure>
  __device__ __forceinline__ std::int32_t largest_key(std::int32_t low, std::int32_t high,
                                                      std::uint64_t goal, Measure measure) const {
    while (low < high) {
      const std::int32_t middle =
          low + static_cast<std::int32_t>(
                    (static_cast<std::uint32_t>(high) - static_cast<std::uint32_t>(low) + 1) / 2);
      std::int32_t above = 0x7fffffff, below = portable::kLowestKey;
#pragma unroll
      for (int s = 0; s < N; ++s) {
        const bool is_above = key[s] >= middle;
        above = min(above, is_above ? key[s] : 0x7fffffff);
        below = max(below, is_above ? portable::kLowestKey : key[s]);
      }
      above = lanes.min(above);
      below = lanes.max(below);
      if (measure(middle) >= goal) {
        low = above;
      } else {
        high = max(low, below);
      }
    }
    return low;
  }
  __device__ __forceinline__ std::int32_t largest_with_weight(std::int32_t low, std::int32_t high,
                                                              std::uint64_t goal) const {
    return largest_key(low, high, goal, [&](std::int32_t from) { return weight_from(from); });
  }
  __device__ __forceinline__ std::int32_t draw(std::uint32_t random, std::uint64_t total) const {
    std::uint64_t own = 0, target = (random * total) >> 24;
#pragma unroll
    for (int s = 0; s < N; ++s) own += weight[s];
    const int lane = lanes.find_lane(own, &target);
    std::int32_t found = kNoId;
#pragma unroll
    for (int s = 0; s < N; ++s) {
      if (found == kNoId && target < weight[s]) found = id[s];
      target -= found == kNoId ? weight[s] : 0u;
    }
    return __shfl_sync(WarpLanes::kAll, found, lane);
  }
};

// A row of logits spread over a warp, and the draw from it.
class WarpRow {
 public:
  // A few ids that hold all the weight, in shared memory of the warp.
  struct Packed {
    std::int32_t key[4 * WarpLanes::kCount], id[4 * WarpLanes::kCount];
  };

  // Starts reading; load() waits.
  __device__ __forceinline__ WarpRow(const float* logits, std::int32_t vocab, Packed* packed)
      : vocab_(vocab), packed_(packed) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      row_.id[s] = s * WarpLanes::kCount + lanes_.index();
      logit_[s] = row_.id[s] < vocab ? logits[row_.id[s]] : 0.0f;
    }
  }

  __device__ __forceinline__ void load() {
    std::int32_t first = portable::kLowestKey, second = first, nan = 0;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const bool real = row_.id[s] < vocab_;
      row_.key[s] = real ? portable::key_of(logit_[s]) : portable::kLowestKey;
      nan |= portable::is_nan(logit_[s]);
      second = max(second, min(first, row_.key[s]));
      first = max(first, row_.key[s]);
    }
    has_nan_ = lanes_.max(nan) != 0;
    high_ = lanes_.max(first);
    first_of_each_ = lanes_.min(first);
    second_of_each_ = lanes_.min(second);
  }

  __device__ __forceinline__ std::int32_t sample(const RowFilter& filter, std::uint32_t random) {
    if (has_nan_ || high_ == portable::kKeyOfMinusInfinity) return kNoId;
    if (filter.temperature == 0.0f) return row_.first_equal(high_);
    const bool by_count = filter.top_k > 0 && filter.top_k < vocab_;
    std::uint64_t goal = static_cast<std::uint64_t>(filter.top_k), total = 0;
    std::int32_t low = by_count ? start_of(filter.top_k) : portable::kLowestKey;
    bool few = false;
    if (by_count) low = narrow(low, goal, /*by_weight=*/false, &few);
    const bool in_top_k = few;  // the top k are among the few
    if (!few) {
      total = row_.weigh(low, high_, filter.temperature);
      if (filter.top_p < 1.0f) {
        low = narrow(max(low, start_of_weight(filter.temperature)), top_p_goal(filter.top_p, total),
                     /*by_weight=*/true, &few);
      }
    }
    if (!few) return draw(row_, total, low, filter.top_p, random);
    RegisterRow<kPackedSlots> row = pack(low);
    if (in_top_k) {
      low =
          row.largest_key(low, high_, goal, [&](std::int32_t key) { return row.count_from(key); });
    }
    const std::uint64_t packed_total = row.weigh(low, high_, filter.temperature);
    return draw(row, in_top_k ? packed_total : total, low, filter.top_p, random);
  }

 private:
  static constexpr int kSlots = kMaxRegisterVocab / WarpLanes::kCount;
  static constexpr int kPackedSlots = 4;

  // A key that at least `top_k` ids reach.
  __device__ __forceinline__ std::int32_t start_of(std::int32_t top_k) const {
    if (top_k <= WarpLanes::kCount) return first_of_each_;
    return top_k <= 2 * WarpLanes::kCount ? second_of_each_ : portable::kLowestKey;
  }
  // A key that every id with weight reaches: exp(-21) of the largest weight rounds to none.
  __device__ __forceinline__ std::int32_t start_of_weight(float temperature) const {
    return portable::key_of(portable::value_of(high_) - 21.0f * temperature);
  }

  // Raises `low` towards the largest key from which on there are `goal` ids, or their weights sum
  // to it: as far as it takes to leave few ids, or to the end.
  __device__ __forceinline__ std::int32_t narrow(std::int32_t low, std::uint64_t goal,
                                                 bool by_weight, bool* few) const {
    constexpr std::uint32_t kFew = kPackedSlots * WarpLanes::kCount;
    std::int32_t high = high_;
    std::uint32_t left = row_.count_from(low);
    for (bool by_value = true; left > kFew && low < high; by_value = !by_value) {
      const std::int32_t middle = middle_of(low, high, by_value);
      const std::uint32_t count = row_.count_from(middle);
      if ((by_weight ? row_.weight_from(middle) : count) >= goal) {
        low = middle;
        left = count;
      } else {
        high = middle - 1;
      }
    }
    *few = left <= kFew;
    return low;
  }
  // In (low, high]. By value it halves the range of the logits, which is quick, by key that of
  // their bits, which always ends.
  __device__ __forceinline__ static std::int32_t middle_of(std::int32_t low, std::int32_t high,
                                                           bool by_value) {
    const float value = 0.5f * (portable::value_of(low) + portable::value_of(high));
    if (by_value && isfinite(value)) return min(max(portable::key_of(value), low + 1), high);
    const std::uint32_t span = static_cast<std::uint32_t>(high) - static_cast<std::uint32_t>(low);
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(low) + span / 2 + span % 2);
  }

  // The ids from `low` on, few, in the order of the draw.
  __device__ __forceinline__ RegisterRow<kPackedSlots> pack(std::int32_t low) const {
    std::int32_t own = 0;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) own += row_.key[s] >= low ? 1 : 0;
    std::int32_t through = own;
    for (int offset = 1; offset < WarpLanes::kCount; offset *= 2) {
      const std::int32_t before = __shfl_up_sync(WarpLanes::kAll, through, offset);
      if (lanes_.index() >= offset) through += before;
    }
    const std::int32_t count = __shfl_sync(WarpLanes::kAll, through, WarpLanes::kCount - 1);
    std::int32_t at = through - own;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (row_.key[s] < low) continue;
      packed_->key[at] = row_.key[s];
      packed_->id[at++] = row_.id[s];
    }
    __syncwarp();
    RegisterRow<kPackedSlots> packed;
#pragma unroll
    for (int s = 0; s < kPackedSlots; ++s) {
      at = kPackedSlots * lanes_.index() + s;
      packed.key[s] = at < count ? packed_->key[at] : portable::kLowestKey;
      packed.id[s] = at < count ? packed_->id[at] : vocab_;
    }
    __syncwarp();
    return packed;
  }

  template <int N>
  __device__ __forceinline__ std::int32_t draw(RegisterRow<N>& row, std::uint64_t total,
                                               std::int32_t low, float top_p,
                                               std::uint32_t random) const {
    if (top_p < 1.0f) total = apply_top_p(row, top_p, total, low, high_);
    return row.draw(random, total);
  }

  WarpLanes lanes_;
  std::int32_t vocab_;
  Packed* packed_;
  float logit_[kSlots];
  RegisterRow<kSlots> row_;
  bool has_nan_ = false;
  std::int32_t high_ = 0;
  std::int32_t first_of_each_ = 0, second_of_each_ = 0;  // least over the lanes
};

}  // namespace higgs_rt
