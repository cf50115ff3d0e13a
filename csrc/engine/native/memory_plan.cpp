#include "engine/native/memory_plan.h"

#include <algorithm>
#include <limits>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::int32_t kDefaultPositions = 1024;  // per sequence, on the CPU
// For what is made after the cache: graphs, the sampler's rows, working memory of joined products
// (ops/cuda/linear_paths.h: 0.2 GB for the 3B model), libraries' own memory.
constexpr std::int64_t kReserve = 512ll << 20;

std::int64_t blocks_wanted(const EngineConfig& config, const KvLayout& layout, bool on_cpu) {
  if (config.num_blocks != 0) return config.num_blocks;
  const std::int32_t usual =
      on_cpu ? std::min(kDefaultPositions, config.max_positions) : config.max_positions;
  return std::max<std::int64_t>(std::int64_t{config.max_sequences} * layout.blocks_for(usual),
                                layout.blocks_for(config.max_positions));
}

// Blocks that fit into the GPU's memory, at most `wanted`.
std::int64_t blocks_in_memory(const EngineConfig& config, std::int64_t wanted, std::int64_t least,
                              std::int64_t block_bytes, std::int32_t spare, const MemoryUse& use,
                              Device& device) {
  const DeviceMemory memory = device.memory();
  const auto total = static_cast<double>(memory.total_bytes);
  const auto kept = static_cast<std::int64_t>((1 - config.gpu_memory_fraction) * total);
  const std::int64_t left = static_cast<std::int64_t>(memory.free_bytes) - kept - kReserve;
  const std::int64_t fitting = std::max<std::int64_t>(left, 0) / block_bytes - spare;
  const std::int64_t needed = config.num_blocks != 0 ? wanted : least;
  if (fitting < needed) {
    fail(ErrorCode::kResourceExhausted, "gpu_memory_fraction", "expected room for ", needed,
         " KV blocks of ", block_bytes, " bytes ",
         config.num_blocks != 0 ? "(num_blocks)" : "(one request of max_sequence)", ", got ",
         std::max<std::int64_t>(left, 0), " bytes on ", device.name(), ": of ", memory.total_bytes,
         " bytes ", memory.free_bytes, " are free, of which ", kept, " stay free (fraction ",
         config.gpu_memory_fraction, ") and ", kReserve, " are for graphs; weights took ",
         use.weights, ", working memory ", use.workspace);
  }
  return std::min(wanted, fitting);
}

}  // namespace

KvLayout plan_cache(const EngineConfig& config, std::int64_t block_bytes, std::int32_t spare,
                    const MemoryUse& use, Device& device) {
  KvLayout layout{config.block_tokens, 0};
  const bool on_cpu = device.kind() == DeviceKind::kCpu;
  const std::int64_t least = layout.blocks_for(config.max_positions);
  std::int64_t blocks = blocks_wanted(config, layout, on_cpu);
  check(blocks >= least, "num_blocks", "expected at least ", least, " (one sequence of ",
        config.max_positions, " positions), got ", blocks);
  if (!on_cpu) {
    blocks = blocks_in_memory(config, blocks, least, block_bytes, spare, use, device);
  }
  check((blocks + spare) * config.block_tokens <= std::numeric_limits<std::int32_t>::max(),
        "num_blocks", "expected at most 2^31 - 1 positions in the KV cache, got ", blocks,
        " blocks of ", config.block_tokens);
  layout.num_blocks = static_cast<std::int32_t>(blocks);
  return layout;
}

}  // namespace higgs_rt
