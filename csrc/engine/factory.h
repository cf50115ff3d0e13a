// Makes engines by backend and device.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "engine/engine.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

struct EngineConfig {
  std::string model_dir;
  std::string backend = "native";  // or "tensorrt"
  std::string plan_dir = "";       // of the tensorrt backend; empty: <model_dir>/tensorrt
  std::int32_t max_rows = 256;
  std::int32_t max_sequences = 32;
  std::int32_t max_positions = 4096;  // of one sequence
  std::int32_t block_tokens = 16;
  std::int32_t num_blocks = 0;  // 0: see RuntimeConfig::num_blocks
  double gpu_memory_fraction = 0.9;
  std::string adapter_dir = "";  // see RuntimeConfig::adapter_dir
  std::vector<NamedAdapter> adapters = {};
  // Native engine: EngineSpec::asynchronous, and decode steps as graphs. Nothing: on CUDA.
  std::optional<bool> asynchronous = std::nullopt;
  // Native engine: copies of linear weights in the order that the device reads fastest (Ops::pack).
  // Without, sums are those of the stored order.
  bool pack_weights = true;
};

struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  ModelInfo info;  // fields of the model and the KV cache; the caller adds codec and threads
};

// `device` and `pool` must outlive the engine. Throws Error that names what is wrong.
LoadedEngine load_engine(const EngineConfig& config, Device& device, ThreadPool& pool);

}  // namespace higgs_rt
