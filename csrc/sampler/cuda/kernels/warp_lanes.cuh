// One warp as the group of lanes that shares a row (row_passes.h).
#pragma once

#include "sampler/row_passes.h"

namespace higgs_rt {

struct WarpLanes {
  static constexpr std::int32_t kCount = 32;
  static constexpr unsigned kAll = 0xffffffffu;
  static_assert(kCount == kDrawLanes);

  __device__ std::int32_t index() const { return static_cast<std::int32_t>(threadIdx.x % 32u); }
  __device__ std::uint32_t sum(std::uint32_t value) const { return __reduce_add_sync(kAll, value); }
  // Of values below 2^40, each half summed by one instruction: 32 weights of 4,096 ids
  // (row_state.h) come to no more than 2^35 a lane.
  __device__ std::uint64_t sum(std::uint64_t value) const {
    constexpr int kLowBits = 20;
    const auto low = static_cast<std::uint32_t>(value) & ((1u << kLowBits) - 1);
    const auto high = static_cast<std::uint32_t>(value >> kLowBits);
    return (static_cast<std::uint64_t>(sum(high)) << kLowBits) + sum(low);
  }
  __device__ std::int32_t max(std::int32_t value) const { return __reduce_max_sync(kAll, value); }
  __device__ std::int32_t min(std::int32_t value) const { return __reduce_min_sync(kAll, value); }

  // The lane in which the running sum of `own` over the lanes first exceeds `target`; takes the sum
  // of the lanes before it off `target`.
  __device__ int find_lane(std::uint64_t own, std::uint64_t* target) const {
    std::uint64_t through = own;
    for (int offset = 1; offset < kCount; offset *= 2) {
      const std::uint64_t before = __shfl_up_sync(kAll, through, offset);
      if (index() >= offset) through += before;
    }
    const int lane = __ffs(__ballot_sync(kAll, *target < through)) - 1;
    *target -= __shfl_sync(kAll, through - own, lane);
    return lane;
  }

  __device__ std::int32_t find(const std::uint32_t* weights, std::int32_t vocab,
                               std::uint64_t target) const {
    std::uint64_t own = 0;
    for (std::int32_t i = index(); i < vocab; i += kCount) own += weights[i];
    const int lane = find_lane(own, &target);
    std::int32_t id = index();
    if (id == lane) {
      while (target >= weights[id]) {
        target -= weights[id];
        id += kCount;
      }
    }
    return __shfl_sync(kAll, id, lane);
  }
};

}  // namespace higgs_rt
