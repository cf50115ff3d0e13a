// What Runtime and Probe load alike: device, threads, engine.
#pragma once

#include <memory>

#include "core/device.h"
#include "core/thread_pool.h"
#include "engine/factory.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

// Members are destroyed in reverse order: what uses the device goes before it.
struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Engine> engine;
  ModelInfo info;  // without the fields of the codec
};

// Throws Error that names the field, file or tensor at fault. `max_sequences`: of one step.
Backend load_backend(const RuntimeConfig& config, std::int32_t max_sequences);

}  // namespace higgs_rt
