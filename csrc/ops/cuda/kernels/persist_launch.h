// The part of the persistent kernel's launch that needs its code, compiled for sm_90a alone.
#pragma once

#include "ops/cuda/kernels/persist.h"

namespace higgs_rt::persist {

// Whether all blocks run at a time.
cudaError_t fits_blocks(bool& fits);
cudaError_t launch_blocks(const PersistStep& step, cudaStream_t stream);

}  // namespace higgs_rt::persist
