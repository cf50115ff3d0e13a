#include "model/receptive_field.h"

#include <algorithm>

#include "model/codec_weights.h"

namespace higgs_rt {

namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

void widen(FrameRange& range, std::int64_t dilation) {
  const std::int64_t reach = dilation * (kCodecKernel - 1) / 2;
  range.first -= reach;
  range.last += reach;
}

}  // namespace

FrameRange receptive_field(const std::vector<std::int32_t>& ratios, std::int64_t offset) {
  FrameRange range{offset, offset};
  widen(range, 1);
  for (auto ratio = ratios.rbegin(); ratio != ratios.rend(); ++ratio) {
    for (const std::int32_t dilation : kCodecDilations) widen(range, dilation);
    // Output j takes input t when 0 <= j + padding - t ratio < 2 ratio.
    const std::int64_t stride = *ratio;
    const std::int64_t padding = (stride + 1) / 2;
    range.first = floor_div(range.first + padding - 2 * stride, stride) + 1;
    range.last = floor_div(range.last + padding, stride);
  }
  widen(range, 1);
  return range;
}

std::int32_t context_frames(const std::vector<std::int32_t>& ratios) {
  std::int64_t hop = 1;
  for (const std::int32_t ratio : ratios) hop *= ratio;
  // Ranges grow with the offset at both ends: the first and the last sample bound them all.
  const std::int64_t left = -receptive_field(ratios, 0).first;
  const std::int64_t right = receptive_field(ratios, hop - 1).last;
  return static_cast<std::int32_t>(std::max(left, right));
}

}  // namespace higgs_rt
