#pragma once

#include "model/weights.h"
#include "ops/ops.h"

namespace higgs_rt {

// Replaces the linear weights that `ops` reads faster in another order by copies of that order,
// which `weights` then owns; the others stay where they are (Ops::pack).
void pack_weights(ModelWeights& weights, Ops& ops);

}  // namespace higgs_rt
