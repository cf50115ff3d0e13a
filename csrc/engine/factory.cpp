#include "engine/factory.h"

#include "core/check.h"
#include "engine/native/native_engine.h"
#include "engine/tensorrt/tensorrt_engine.h"

namespace higgs_rt {

LoadedEngine load_engine(const EngineConfig& config, Device& device, ThreadPool& pool) {
  if (config.backend == "native") return load_native_engine(config, device, pool);
  check(config.adapter_dir.empty(), "adapter_dir", "expected none with backend ", config.backend,
        " (build the plan with build_engine --adapter), got ", config.adapter_dir);
  check(config.adapters.empty(), "adapters", "expected none with backend ", config.backend,
        " (a plan has its weights built in: build one for each adapter with build_engine "
        "--adapter), got ",
        config.adapters.size());
  if (config.backend == "tensorrt") return load_tensorrt_engine(config, device, pool);
  fail(ErrorCode::kInvalidArgument, "backend", "expected native or tensorrt, got \"",
       config.backend, "\"");
}

}  // namespace higgs_rt
