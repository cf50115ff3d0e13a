// A TensorRT plan behind the Engine interface.
#pragma once

#include "engine/factory.h"

namespace higgs_rt {

// Throws kUnsupported when this build has no TensorRT.
LoadedEngine load_tensorrt_engine(const EngineConfig& config, Device& device);

}  // namespace higgs_rt
