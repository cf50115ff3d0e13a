// Answers for the CUDA operations, which do not exist yet.
#include "core/check.h"
#include "ops/ops.h"

namespace higgs_rt {

std::unique_ptr<Ops> make_cuda_ops(Device& device) {
  fail(ErrorCode::kUnsupported, "ops", "expected operations for ", device.name(),
       ", got a higgs_rt that has them for the CPU only; use device \"cpu\"");
}

}  // namespace higgs_rt
