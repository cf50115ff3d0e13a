// Linked in place of engine/tensorrt when the build has no TensorRT.
#include "core/check.h"
#include "engine/tensorrt/tensorrt_engine.h"

namespace higgs_rt {

LoadedEngine load_tensorrt_engine(const EngineConfig& config, Device&) {
  fail(ErrorCode::kUnsupported, "backend", "tensorrt was asked for (model ", config.model_dir,
       "), but this build has no TensorRT (configure with -DHIGGS_RT_TENSORRT=ON)");
}

}  // namespace higgs_rt
