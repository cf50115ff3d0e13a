// Writes the rows of one step into a StepBatch.
#pragma once

#include <cstdint>
#include <span>

#include "batch/step_batch.h"
#include "engine/engine.h"
#include "executor/sequence.h"

namespace higgs_rt {

struct BatchItem {
  Sequence* sequence = nullptr;
  std::int32_t rows = 0;  // positions [computed, computed + rows) of the sequence
};

// True when the item reaches the last planned position, so that its logits give the next column.
inline bool wants_logits(const BatchItem& item) {
  return item.sequence->computed + item.rows == item.sequence->planned_size();
}

// Every sequence's blocks cover its rows. A lone row at the last column, which may be one in
// flight, is fed back on the device; every other column comes from the host copy. logit_rows and
// sampler_rows are in item order. With EngineSpec::separate_decode all items are decode rows or
// none is.
void build_batch(std::span<const BatchItem> items, const EngineSpec& spec, StepBatch& batch);

}  // namespace higgs_rt
