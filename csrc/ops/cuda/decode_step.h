// What the forms of a whole decode step share.
#pragma once

#include "core/cuda/cuda_device.h"

namespace higgs_rt {

// Working memory of a step may be made now: throws kInternal while a graph is recorded.
void expect_no_capture(CudaDevice& device);

}  // namespace higgs_rt
