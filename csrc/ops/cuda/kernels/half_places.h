// Which output stands where in a product of the codec's kernels.
#pragma once

#include <cstdint>

namespace higgs_rt {

// Thread q of four holds columns 2q and 2q + 1 of two neighbouring products: place p of 16 holds
// the output that makes its four consecutive.
inline std::int64_t half_output_at(std::int64_t place) {
  const std::int64_t p = place % 16, tile = p / 8, column = p % 8;
  return place - p + column / 2 * 4 + tile * 2 + column % 2;
}

}  // namespace higgs_rt
