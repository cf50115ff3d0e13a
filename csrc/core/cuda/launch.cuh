// How the kernels of the project are launched, all but a few (launch_in_order): so that the next
// kernel may start while this one ends (programmatic dependent launch; compute capability 9.0,
// elsewhere without effect).
//
// The rule. A kernel launched by launch() may run before the kernels ahead of it in the stream have
// finished. It must therefore call grid_wait() in every thread before it reads anything that a
// kernel wrote and before it writes anything at all; before that it may only read what no kernel of
// its step writes: weights, tables made at load time, what earlier steps wrote. (Every step begins
// with a copy of its inputs or the launch of a graph, which wait for all that is ahead of them;
// where a kernel makes that copy, copy_words.h says what the first kernel behind it must do.) A
// kernel that has no use for that calls grid_wait() first. grid_launch_next() lets the next kernel
// start (it still waits in its grid_wait() until this one has finished); without it the next one
// starts when this one ends.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace higgs_rt {

__device__ inline void grid_wait() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

__device__ inline void grid_launch_next() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Begins when the kernels ahead of it in the stream have ended. Unlike <<<>>> with
// cudaGetLastError(), it reports no error but its own.
template <class... Parameters, class... Arguments>
cudaError_t launch_in_order(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                            std::size_t shared_bytes, cudaStream_t stream,
                            Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// In clusters of `cluster` blocks (1 to 8, a divisor of the grid; more than 1 needs compute
// capability 9.0).
template <class... Parameters, class... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block,
                            std::size_t shared_bytes, cudaStream_t stream,
                            Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster == 1 ? 1 : 2;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  return launch_clusters(kernel, 1, grid, block, shared_bytes, stream,
                         std::forward<Arguments>(arguments)...);
}

}  // namespace higgs_rt
