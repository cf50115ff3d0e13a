// Which inputs the samples of the codec decoder depend on (specification 8.2).
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt {

// Times first..last (inclusive) at some rate; negative times and those beyond the end are padding.
struct TimeRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Exact: what `samples` need, carried backwards through every convolution of a decoder with these
// upsampling ratios. Element 0 is in frames: the input of the first convolution. Element 1 + i is
// the input of block i, and the last one the input of the last convolution.
std::vector<TimeRange> needed_inputs(const std::vector<std::int32_t>& ratios,
                                     const TimeRange& samples);

// Frames on each side of a frame that its samples depend on.
std::int32_t context_frames(const std::vector<std::int32_t>& ratios);

}  // namespace higgs_rt
