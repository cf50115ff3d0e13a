// Weights that the kernels after this one will read first. A kernel that has its own last loads
// under way may ask for them, so that memory is not idle while one kernel ends and the next begins.
#pragma once

#include <cstdint>

namespace higgs_rt {

struct ReadAhead {
  struct Range {
    const void* data = nullptr;  // multiple of 16
    std::uint32_t requests = 0;
    std::uint32_t bytes = 0;   // of a request, a multiple of 16
    std::uint32_t stride = 0;  // bytes from one request to the next
  };
  static constexpr int kRanges = 3;
  Range range[kRanges] = {};
  int tiles = 0;  // a streaming product asks this many tiles before its end
};

}  // namespace higgs_rt
