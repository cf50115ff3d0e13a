// The convolutions of half_codec.h by groups of four warps (wgmma; compute capability 9.0), for a
// multiple of 64 channels and of 128 outputs.
#pragma once

#include "ops/cuda/kernels/half_codec.h"

namespace higgs_rt {

inline constexpr std::int32_t kGroupChannels = 64, kGroupOutputs = 128;
// On the calling thread's current GPU, for these padded numbers.
bool half_group_takes(std::int32_t channels, std::int32_t outputs);
bool half_group_takes_unit(std::int32_t channels);
cudaError_t launch_group_conv(const HalfConv& conv, cudaStream_t stream);
cudaError_t launch_group_unit(const HalfUnit& unit, cudaStream_t stream);
cudaError_t prepare_half_group();  // as prepare_half_conv()

}  // namespace higgs_rt
