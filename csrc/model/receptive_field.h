// Which frames a sample of the codec decoder depends on (specification 8.2).
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt {

// Frames first..last relative to a sample's own frame.
struct FrameRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Exact: the range of sample `offset` of a frame is carried backwards through every convolution of
// a decoder with these upsampling ratios.
FrameRange receptive_field(const std::vector<std::int32_t>& ratios, std::int64_t offset);

// Frames on each side that cover every sample of a frame.
std::int32_t context_frames(const std::vector<std::int32_t>& ratios);

}  // namespace higgs_rt
