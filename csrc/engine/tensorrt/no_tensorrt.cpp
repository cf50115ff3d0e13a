// Linked in place of the adapter to the vendor's API when the build has no TensorRT.
#include "core/check.h"
#include "engine/tensorrt/plan.h"

namespace higgs_rt {

std::unique_ptr<PlanRuntime> make_plan_runtime(Device&) {
  fail(ErrorCode::kUnsupported, "backend",
       "expected native, got tensorrt: this build has no TensorRT (configure with ",
       "-DHIGGS_RT_TENSORRT=ON, docs/tensorrt.md)");
}

}  // namespace higgs_rt
