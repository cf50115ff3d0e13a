// Reading the plan of a step with prompts.
#pragma once

#include "ops/cuda/kernels/attention.h"

namespace higgs_rt {

// Before grid_wait(): the plan's kernel lets others begin only once it is written, and this does
// not read what an L1 cache has kept.
__device__ inline AttentionTile load_planned(const AttentionTile* from) {
  const int4 words = __ldcg(reinterpret_cast<const int4*>(from));
  return {words.x, words.y, words.z, words.w};
}

}  // namespace higgs_rt
