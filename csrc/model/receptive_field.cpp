#include "model/receptive_field.h"

#include <algorithm>

#include "model/codec_weights.h"

namespace higgs_rt {

namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

TimeRange before_conv(const TimeRange& range, std::int64_t dilation) {
  const std::int64_t reach = dilation * (kCodecKernel - 1) / 2;
  return {range.first - reach, range.last + reach};
}

TimeRange before_block(TimeRange range, std::int64_t ratio) {
  for (const std::int32_t dilation : kCodecDilations) range = before_conv(range, dilation);
  // Output j of the transposed convolution takes input t when 0 <= j + padding - t ratio < 2 ratio.
  const std::int64_t padding = (ratio + 1) / 2;
  return {floor_div(range.first + padding - 2 * ratio, ratio) + 1,
          floor_div(range.last + padding, ratio)};
}

}  // namespace

std::vector<TimeRange> needed_inputs(const std::vector<std::int32_t>& ratios,
                                     const TimeRange& samples) {
  std::vector<TimeRange> ranges = {before_conv(samples, 1)};
  for (auto ratio = ratios.rbegin(); ratio != ratios.rend(); ++ratio) {
    ranges.push_back(before_block(ranges.back(), *ratio));
  }
  ranges.push_back(before_conv(ranges.back(), 1));
  std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

std::int32_t context_frames(const std::vector<std::int32_t>& ratios) {
  std::int64_t hop = 1;
  for (const std::int32_t ratio : ratios) hop *= ratio;
  const TimeRange frames = needed_inputs(ratios, {0, hop - 1}).front();
  return static_cast<std::int32_t>(std::max(-frames.first, frames.last));
}

}  // namespace higgs_rt
