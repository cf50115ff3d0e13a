// Linked in place of ops/cuda when the build has no CUDA.
#include "core/check.h"
#include "ops/ops.h"

namespace higgs_rt {

std::unique_ptr<Ops> make_cuda_ops(Device& device) {
  fail(ErrorCode::kUnsupported, "ops", "operations for ", device.name(),
       " were asked for, but this build has no CUDA (configure with -DHIGGS_RT_CUDA=ON)");
}

}  // namespace higgs_rt
