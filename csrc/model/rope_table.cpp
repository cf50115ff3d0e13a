#include "model/rope_table.h"

#include <cmath>
#include <numbers>

namespace higgs_rt {

namespace {

float scaled_frequency(const RopeConfig& rope, float frequency) {
  if (!rope.scaled) return frequency;
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const float wavelength = 1.0f / frequency * static_cast<float>(2 * std::numbers::pi);
  if (wavelength > static_cast<float>(rope.original_positions / rope.low_freq_factor)) {
    return frequency / factor;
  }
  if (wavelength < static_cast<float>(rope.original_positions / rope.high_freq_factor)) {
    return frequency;
  }
  const float cycles = 1.0f / wavelength * static_cast<float>(rope.original_positions);
  const float smooth = (cycles - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> inverse_frequencies(const RopeConfig& rope, std::int32_t head_dim) {
  std::vector<float> out;
  for (std::int32_t i = 0; i < head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    out.push_back(scaled_frequency(rope, 1.0f / power));
  }
  return out;
}

std::vector<float> rope_table(const RopeConfig& rope, std::int32_t head_dim,
                              std::int32_t positions) {
  const std::vector<float> frequencies = inverse_frequencies(rope, head_dim);
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(positions) * frequencies.size() * 2);
  for (std::int32_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      table.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      table.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  return table;
}

}  // namespace higgs_rt
