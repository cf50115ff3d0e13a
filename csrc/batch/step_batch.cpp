#include "batch/step_batch.h"

namespace higgs_rt {

void StepBatch::clear() {
  num_text_rows = 0;
  decode = false;
  num_sequences = 0;
  max_blocks = 0;
  for (auto* field : {&ids, &sequence, &position, &slot, &columns, &block_table, &context_length,
                      &adapter, &text_offset, &audio_offset, &logit_rows, &sampler_rows}) {
    field->clear();
  }
  table_rows.clear();
}

}  // namespace higgs_rt
