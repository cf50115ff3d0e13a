// Weights of the codec's convolutions in the order in which half_conv.cuh reads them.
#include <algorithm>

#include "ops/cuda/kernels/half_codec.h"
#include "ops/cuda/kernels/half_group.h"
#include "ops/cuda/kernels/half_places.h"

namespace higgs_rt {

namespace {

std::int32_t chunk_of(std::int32_t channels) { return channels % 64 == 0 ? 64 : 32; }

// Each block of `outputs` places by kGroupChannels from [place][channel] to [piece of 8 channels]
// [place][channel in piece].
void pack_for_group(std::vector<__half>& packed, std::size_t outputs) {
  constexpr std::size_t kPiece = 8;
  std::vector<__half> block(outputs * kGroupChannels);
  for (std::size_t first = 0; first < packed.size(); first += block.size()) {
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t place = i / kGroupChannels, channel = i % kGroupChannels;
      const std::size_t at = (channel / kPiece * outputs + place) * kPiece + channel % kPiece;
      block[at] = packed[first + i];
    }
    std::copy(block.begin(), block.end(), packed.begin() + static_cast<std::ptrdiff_t>(first));
  }
}

// [chunk][tap][place of output][channel in chunk].
std::vector<__half> pack_chunks(const float* weight, std::int64_t outputs, std::int64_t channels,
                                std::int64_t taps) {
  const std::int64_t wide = half_channels(channels), high = half_channels(outputs);
  const std::int64_t chunk = chunk_of(static_cast<std::int32_t>(wide));
  std::vector<__half> packed(static_cast<std::size_t>(wide * high * taps), __float2half(0.0F));
  std::size_t at = 0;
  for (std::int64_t first = 0; first < wide; first += chunk) {
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      for (std::int64_t place = 0; place < high; ++place) {
        const std::int64_t o = half_output_at(place);
        for (std::int64_t c = first; c < first + chunk; ++c, ++at) {
          if (o >= outputs || c >= channels) continue;
          packed[at] = __float2half(weight[(o * channels + c) * taps + tap]);
        }
      }
    }
  }
  return packed;
}

}  // namespace

// For half_group.cu each kGroupOutputs outputs of a chunk and a tap as [piece of 8 channels][place
// of output][channel in piece].
std::vector<__half> pack_half_conv(const float* weight, std::int64_t outputs, std::int64_t channels,
                                   std::int64_t taps) {
  std::vector<__half> packed = pack_chunks(weight, outputs, channels, taps);
  if (half_group_takes(half_channels(channels), half_channels(outputs))) {
    pack_for_group(packed, kGroupOutputs);
  }
  return packed;
}

// There all outputs.
std::vector<__half> pack_half_unit_conv(const float* weight, std::int64_t channels,
                                        std::int64_t taps) {
  const std::int32_t wide = half_channels(channels);
  std::vector<__half> packed = pack_chunks(weight, channels, channels, taps);
  if (half_group_takes_unit(wide)) pack_for_group(packed, static_cast<std::size_t>(wide));
  return packed;
}

// Of each phase: its two taps as an ordinary convolution, the later tap first because it reads the
// earlier time.
std::vector<__half> pack_half_conv_transpose(const float* weight, std::int64_t outputs,
                                             std::int64_t channels, std::int64_t stride) {
  const std::int64_t padding = (stride + 1) / 2;
  std::vector<__half> packed;
  std::vector<float> phase_weight(static_cast<std::size_t>(outputs * channels * 2));
  for (std::int64_t phase = 0; phase < stride; ++phase) {
    const std::int64_t tap = (phase + padding) % stride;
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float* from = weight + (c * outputs + o) * 2 * stride;
        float* to = phase_weight.data() + (o * channels + c) * 2;
        to[0] = from[tap + stride];
        to[1] = from[tap];
      }
    }
    const std::vector<__half> part = pack_half_conv(phase_weight.data(), outputs, channels, 2);
    packed.insert(packed.end(), part.begin(), part.end());
  }
  return packed;
}

}  // namespace higgs_rt
