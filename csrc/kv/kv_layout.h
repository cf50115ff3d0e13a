// The one address formula of the KV cache.
#pragma once

#include <cstdint>

namespace higgs_rt {

// A paged cache of num_blocks blocks of block_tokens positions each. An engine with one linear
// cache per slot is the case block_tokens = max sequence length.
struct KvLayout {
  std::int32_t block_tokens = 0;
  std::int32_t num_blocks = 0;

  std::int64_t num_slots() const { return std::int64_t{block_tokens} * num_blocks; }
  std::int32_t blocks_for(std::int32_t tokens) const {
    return (tokens + block_tokens - 1) / block_tokens;
  }
  // Slot of `position` in a sequence whose blocks are `blocks`.
  std::int32_t slot(const std::int32_t* blocks, std::int32_t position) const {
    return blocks[position / block_tokens] * block_tokens + position % block_tokens;
  }
};

}  // namespace higgs_rt
