// Where the time of a one-kernel decode step goes.
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt::bench {

// Cycles between the clocks of ops/cuda/decode_stamps.h, [kDecodeBlocks, layers, kDecodeStamps],
// over layers and blocks; the first `attending` blocks have a share of the attention.
void print_decode_stamps(const std::vector<std::int64_t>& clocks, std::int64_t layers,
                         std::int64_t attending);

}  // namespace higgs_rt::bench
