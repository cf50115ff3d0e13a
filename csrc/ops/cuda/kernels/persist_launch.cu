// The part of the persistent kernel's launch that needs its code.
#include "ops/cuda/kernels/persist_launch.h"

#include "ops/cuda/kernels/persist_kernel.cuh"

namespace higgs_rt::persist {

// Blocks are all there at a time or not at all: they wait for each other (a cooperative launch).
struct Launch {
  static constexpr int kBytes = Places::kBytes;
  static_assert(kBytes <= 232448);
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config{};

  explicit Launch(cudaStream_t stream) {
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim.x = kCluster;
    attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
    attributes[1].id = cudaLaunchAttributeCooperative;
    attributes[1].val.cooperative = 1;
    config.gridDim = kCluster * kClusters;
    config.blockDim = kThreads + kHelpers;
    config.dynamicSmemBytes = kBytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
  }
  static cudaError_t prepare() {
    return cudaFuncSetAttribute(persist_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                kBytes);
  }
};

cudaError_t fits_blocks(bool& fits) {
  Launch launch(nullptr);
  launch.config.numAttrs = 1;
  int count = 0;
  cudaError_t result = launch.prepare();
  if (result == cudaSuccess) {
    result = cudaOccupancyMaxActiveClusters(&count, persist_kernel, &launch.config);
  }
  fits = result == cudaSuccess && count >= kClusters;
  return result;
}

cudaError_t launch_blocks(const PersistStep& step, cudaStream_t stream) {
  Launch launch(stream);
  const cudaError_t result = launch.prepare();
  return result != cudaSuccess ? result : cudaLaunchKernelEx(&launch.config, persist_kernel, step);
}

}  // namespace higgs_rt::persist
