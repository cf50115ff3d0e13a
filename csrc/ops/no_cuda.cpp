// Answers for the CUDA operations in a build without them.
#include "core/check.h"
#include "ops/ops.h"

namespace higgs_rt {

std::unique_ptr<Ops> make_cuda_ops(Device& device) {
  fail(ErrorCode::kUnsupported, "ops", "expected operations for ", device.name(),
       ", got a higgs_rt built without CUDA (HIGGS_RT_CUDA=OFF); use device \"cpu\"");
}

}  // namespace higgs_rt
