// What the convolutions share: working memory, and a padded copy of a block of input.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace higgs_rt {

// Input of a block of time, all channels: it stays in the second-level cache while every output
// passes over it.
inline constexpr std::int64_t kConvBlockBytes = 256 << 10;
inline constexpr std::int64_t kMaxConvSteps = 2048;
// Outputs that Kernels::conv takes together.
inline constexpr std::int64_t kConvTile = 8;

// Grows only; one per thread and use, so that a decode allocates nothing once it has run.
template <int Use>
float* conv_scratch(std::int64_t size) {
  thread_local std::vector<float> memory;
  if (static_cast<std::int64_t>(memory.size()) < size) {
    memory.resize(static_cast<std::size_t>(size));
  }
  return memory.data();
}

inline std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

// to[c, i] = x[c, first + i] for i in [0, width), zero outside [0, times); move(c, from, to, count)
// brings the numbers.
template <class Move>
void copy_padded(const float* x, std::int64_t channels, std::int64_t times, std::int64_t first,
                 std::int64_t width, std::int64_t stride, float* to, const Move& move) {
  const std::int64_t begin = std::clamp<std::int64_t>(-first, 0, width);
  const std::int64_t end = std::clamp<std::int64_t>(times - first, begin, width);
  for (std::int64_t c = 0; c < channels; ++c, x += times, to += stride) {
    std::fill(to, to + begin, 0.0f);
    if (begin < end) move(c, x + first + begin, to + begin, end - begin);
    std::fill(to + end, to + width, 0.0f);
  }
}

}  // namespace higgs_rt
