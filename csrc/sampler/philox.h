// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a random
// number is a function of its key and counter, so no generator state travels with a request.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace higgs_rt {

struct PhiloxBlock {
  std::uint32_t word[4];
};

// Ten rounds over `counter` with the 64-bit `key`.
HIGGS_HOST_DEVICE inline PhiloxBlock philox(PhiloxBlock counter, std::uint64_t key) {
  auto key_low = static_cast<std::uint32_t>(key);
  auto key_high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t odd = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(odd >> 32) ^ counter.word[1] ^ key_low,
                static_cast<std::uint32_t>(odd),
                static_cast<std::uint32_t>(even >> 32) ^ counter.word[3] ^ key_high,
                static_cast<std::uint32_t>(even)}};
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// Which of the draws of one codebook in one step.
enum class Draw : std::uint32_t { kCandidate = 0, kResample = 1 };

// The uniform number of (seed, step, codebook, draw) times 2^24: an integer in [0, 2^24).
HIGGS_HOST_DEVICE inline std::uint32_t uniform_24_bits(std::uint64_t seed, std::uint32_t step,
                                                       std::uint32_t codebook, Draw draw) {
  return philox({{step, codebook, static_cast<std::uint32_t>(draw), 0u}}, seed).word[0] >> 8;
}

}  // namespace higgs_rt
