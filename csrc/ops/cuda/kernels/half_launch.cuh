// How the codec's kernels are launched.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/half_codec.h"

namespace higgs_rt {

// launch(), or, where work that goes first runs beside the codec, so that the kernel begins when
// the one ahead of it has ended: blocks that start early hold places on multiprocessors while they
// wait.
template <class... Parameters, class... Arguments>
cudaError_t launch_half(const HalfBatch& batch, void (*kernel)(Parameters...), dim3 grid,
                        dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                        Arguments&&... arguments) {
  if (batch.early) {
    return launch(kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
  }
  return launch_in_order(kernel, grid, block, shared_bytes, stream,
                         std::forward<Arguments>(arguments)...);
}

}  // namespace higgs_rt
