// The group of one lane (row_passes.h): a CPU thread takes a whole row, and the compiler turns the
// passes into vector code. Integer arithmetic makes any order of the sums the same.
#pragma once

#include <cstdint>

#include "sampler/row_passes.h"

namespace higgs_rt {

struct HostLanes {
  static constexpr std::int32_t kCount = 1;
  std::int32_t index() const { return 0; }
  template <class Value>
  Value sum(Value value) const {
    return value;
  }
  std::int32_t max(std::int32_t value) const { return value; }
  std::int32_t min(std::int32_t value) const { return value; }

  std::int32_t find(const std::uint32_t* weights, std::int32_t vocab, std::uint64_t target) const {
    std::uint64_t sums[kDrawLanes] = {};
    const std::int32_t whole = vocab / kDrawLanes * kDrawLanes;
    for (std::int32_t base = 0; base < whole; base += kDrawLanes) {
      for (std::int32_t lane = 0; lane < kDrawLanes; ++lane) sums[lane] += weights[base + lane];
    }
    for (std::int32_t i = whole; i < vocab; ++i) sums[i - whole] += weights[i];

    std::int32_t lane = 0;
    while (target >= sums[lane]) target -= sums[lane++];
    std::int32_t id = lane;
    while (target >= weights[id]) {
      target -= weights[id];
      id += kDrawLanes;
    }
    return id;
  }
};

}  // namespace higgs_rt
