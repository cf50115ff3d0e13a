// Residual units on the tensor cores by single warps, and the choice between these kernels and
// those of half_group.cu.
#include "ops/cuda/kernels/half_group.h"
#include "ops/cuda/kernels/half_unit_kernel.cuh"

namespace higgs_rt {

namespace {

// Narrow ones ask for all their weights at once.
template <class Use>
cudaError_t with_unit(std::int32_t channels, const Use& use) {
  if (channels == 128) return use(WarpShape<7, 64, 128, 3>{});
  if (channels == 64) return use(WarpShape<7, 64, 64, 8>{});
  if (channels == 32) return use(WarpShape<7, 32, 32, 8>{});
  return cudaErrorInvalidValue;
}

}  // namespace

bool half_unit_fits(std::int32_t channels) {
  if (half_group_takes_unit(channels)) return true;
  return with_unit(channels, [](auto) { return cudaSuccess; }) == cudaSuccess;
}

cudaError_t launch_half_unit(const HalfUnit& unit, cudaStream_t stream) {
  if (half_group_takes_unit(unit.conv.channels)) return launch_group_unit(unit, stream);
  return with_unit(unit.conv.channels,
                   [&](auto shape) { return launch_unit_shape<decltype(shape)>(unit, stream); });
}

cudaError_t prepare_half_unit() {
  constexpr int kBytes = 112 * 1024;  // of two blocks on a multiprocessor
  for (const int channels : {128, 64, 32}) {
    const cudaError_t result = with_unit(channels, [&](auto shape) {
      return cudaFuncSetAttribute(half_unit_kernel<decltype(shape)>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    });
    if (result != cudaSuccess) return result;
  }
  return cudaSuccess;
}

}  // namespace higgs_rt
