// Validation of a step against an engine's limits, before anything is written.
#pragma once

#include "batch/step_batch.h"
#include "engine/engine.h"

namespace higgs_rt {

// Costs a few comparisons per row. Throws kInvalidArgument that names field, limit and value.
void check_batch(const StepBatch& batch, const StepOutput& output, const EngineSpec& spec);
// The same for the sampler rows that a tail will read and write.
void check_tail(const StepBatch& batch, const StepOutput& output, const StepTail& tail);

}  // namespace higgs_rt
