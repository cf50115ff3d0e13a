#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/kernels/read_ahead.h"

namespace higgs_rt {

// Asks for the share of warp `warp` of `warps` to come into the L2 cache; nothing waits for it.
// Reads weights only, so it may stand before grid_wait(). Without effect before compute capability
// 9.0.
__device__ inline void read_ahead(const ReadAhead& ahead, unsigned warp, unsigned warps) {
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x % 32 != 0) return;
#pragma unroll 1
  for (int r = 0; r < ReadAhead::kRanges; ++r) {
    const ReadAhead::Range& range = ahead.range[r];
#pragma unroll 1
    for (unsigned i = warp; i < range.requests; i += warps) {
      const char* from = static_cast<const char*>(range.data) + std::int64_t{i} * range.stride;
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(range.bytes)
                   : "memory");
    }
  }
#endif
}

}  // namespace higgs_rt
