#include "api/backend.h"

#include <utility>

#include "api/config_check.h"
#include "ops/ops.h"

namespace higgs_rt {

Backend load_backend(const RuntimeConfig& config, std::int32_t max_sequences) {
  validate(config);
  Backend backend;
  backend.device = make_device(config.device);
  backend.pool = std::make_unique<ThreadPool>(config.num_threads);
  LoadedEngine loaded = load_engine({.model_dir = config.model_dir,
                                     .backend = config.backend,
                                     .plan_dir = config.plan_dir,
                                     .max_rows = config.max_step_tokens,
                                     .max_sequences = max_sequences,
                                     .max_positions = config.max_sequence,
                                     .block_tokens = config.block_tokens,
                                     .num_blocks = config.num_blocks,
                                     .gpu_memory_fraction = config.gpu_memory_fraction,
                                     .adapter_dir = config.adapter_dir,
                                     .adapters = config.adapters},
                                    *backend.device, *backend.pool);
  backend.engine = std::move(loaded.engine);
  backend.info = std::move(loaded.info);
  backend.info.model_dir = config.model_dir;
  backend.info.num_threads = backend.pool->size();
  backend.info.cpu_isa = cpu_isa();
  if (backend.device->kind() != DeviceKind::kCpu) {
    backend.info.device_bytes = static_cast<std::int64_t>(backend.device->memory().total_bytes);
  }
  return backend;
}

}  // namespace higgs_rt
