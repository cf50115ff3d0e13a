// Answers for the TensorRT engine, which does not exist yet.
#include "core/check.h"
#include "engine/tensorrt/tensorrt_engine.h"

namespace higgs_rt {

LoadedEngine load_tensorrt_engine(const EngineConfig& config, Device&) {
  fail(ErrorCode::kUnsupported, "backend", "expected native, got tensorrt (model ",
       config.model_dir, "): this higgs_rt has no TensorRT engine yet");
}

}  // namespace higgs_rt
