// Convolutions on the tensor cores by single warps, and the choice between these kernels and those
// of half_group.cu.
#include "ops/cuda/kernels/half_conv_kernel.cuh"
#include "ops/cuda/kernels/half_group.h"

namespace higgs_rt {

namespace {

template <int kTaps, int kChunk, class Use>
cudaError_t with_outputs(std::int32_t outputs, const Use& use) {
  if (outputs % 128 == 0) return use(WarpShape<kTaps, kChunk, 128>{});
  if (outputs % 64 == 0) return use(WarpShape<kTaps, kChunk, 64>{});
  if (outputs % 32 == 0) return use(WarpShape<kTaps, kChunk, 32>{});
  return cudaErrorInvalidValue;
}

template <int kTaps, class Use>
cudaError_t with_channels(std::int32_t channels, std::int32_t outputs, const Use& use) {
  if (channels % 64 == 0) return with_outputs<kTaps, 64>(outputs, use);
  if (channels % 32 == 0) return with_outputs<kTaps, 32>(outputs, use);
  return cudaErrorInvalidValue;
}

// Calls `use` with the WarpShape for these sizes.
template <class Use>
cudaError_t with_shape(std::int32_t taps, std::int32_t channels, std::int32_t outputs,
                       const Use& use) {
  if (taps == 7) return with_channels<7>(channels, outputs, use);
  if (taps == 2) return with_channels<2>(channels, outputs, use);
  if (taps == 1) return with_channels<1>(channels, outputs, use);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_half_conv(const HalfConv& conv, cudaStream_t stream) {
  if (half_group_takes(conv.channels, conv.outputs)) return launch_group_conv(conv, stream);
  return with_shape(conv.taps, conv.channels, conv.outputs,
                    [&](auto shape) { return launch_conv_shape<decltype(shape)>(conv, stream); });
}

cudaError_t prepare_half_conv() {
  for (const int taps : {7, 2, 1}) {
    for (const int channels : {64, 32}) {
      for (const int outputs : {128, 64, 32}) {
        const cudaError_t result = with_shape(taps, channels, outputs, [&](auto shape) {
          return cudaFuncSetAttribute(half_conv_kernel<decltype(shape)>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      kHalfCodecSharedBytes);
        });
        if (result != cudaSuccess) return result;
      }
    }
  }
  return prepare_half_group();
}

}  // namespace higgs_rt
