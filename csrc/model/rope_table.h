// Rotary frequencies and their table (specification 3.4).
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace higgs_rt {

// Inverse frequencies [head_dim / 2] in fp32, computed step by step as transformers does, so that
// both published forms of the scaling give the same bits.
std::vector<float> inverse_frequencies(const RopeConfig& rope, std::int32_t head_dim);

// (cos, sin) of position * frequency, [positions, head_dim / 2, 2]; the angle is rounded to fp32.
std::vector<float> rope_table(const RopeConfig& rope, std::int32_t head_dim,
                              std::int32_t positions);

}  // namespace higgs_rt
