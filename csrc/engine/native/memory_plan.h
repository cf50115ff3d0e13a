// How much KV cache an engine takes.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "engine/factory.h"
#include "kv/kv_layout.h"

namespace higgs_rt {

// Device memory that is taken before the cache, in bytes; for messages.
struct MemoryUse {
  std::int64_t weights = 0;
  std::int64_t workspace = 0;
};

// Decides config.num_blocks when it is 0. `block_bytes`: keys and values of all layers. `spare`:
// blocks that the engine takes for itself besides. On a GPU the cache must fit into what
// gpu_memory_fraction leaves. Throws kInvalidArgument when one sequence does not fit the blocks,
// and kResourceExhausted, with the numbers, when the blocks do not fit the memory.
KvLayout plan_cache(const EngineConfig& config, std::int64_t block_bytes, std::int32_t spare,
                    const MemoryUse& use, Device& device);

}  // namespace higgs_rt
