// What the step loop has to do with the prefix cache: blocks found, taken over, and put in.
#include <algorithm>

#include "executor/step_loop.h"

namespace higgs_rt {

// What the plan must know about a sequence. Looks again for the blocks that one without blocks may
// start with, as they come and go.
SequenceView StepLoop::view_of(Sequence& sequence) {
  SequenceView view{.size = sequence.planned_size(),
                    .computed = sequence.computed,
                    .blocks = sequence.blocks.size(),
                    .shared = {},
                    .prompt = sequence.prompt_size()};
  if (!cache_.enabled()) return view;
  view.shared = sequence.blocks.blocks();
  if (view.blocks > 0) return view;
  sequence.found.clear();
  for (const PrefixKey key : sequence.keys()) {
    const std::int32_t block = cache_.find(key);
    if (block < 0) break;
    sequence.found.push_back(block);
  }
  view.computed = static_cast<std::int32_t>(sequence.found.size()) * limits_.kv.block_tokens;
  view.shared = sequence.found;
  return view;
}

// A sequence starts with what was found for the plan.
void StepLoop::adopt_found(Sequence& sequence) {
  if (!cache_.enabled()) return;
  for (const std::int32_t block : sequence.found) {
    sequence.blocks.adopt(sequence.blocks.size(), block);
  }
  sequence.computed = sequence.blocks.size() * limits_.kv.block_tokens;
  counts_.prefix_positions += sequence.prompt_size();
  counts_.prefix_hits += sequence.computed;
}

// In the middle of its prompt a sequence goes over to blocks that others have computed since.
void StepLoop::adopt_computed(Sequence& sequence) {
  if (sequence.blocks.size() == 0) return;
  const auto keys = sequence.keys();
  const std::int32_t width = limits_.kv.block_tokens;
  for (std::int32_t index = sequence.computed / width; index < std::ssize(keys); ++index) {
    const std::int32_t block = cache_.find(keys[static_cast<std::size_t>(index)]);
    if (block < 0) return;
    sequence.blocks.adopt(index, block);
    counts_.prefix_hits += (index + 1) * width - sequence.computed;
    sequence.computed = (index + 1) * width;
  }
}

// The blocks that the sequence completes with the positions before `end`. `step`: which computes
// them.
void StepLoop::cache_prefix(const Sequence& sequence, std::int32_t end, Step& step) {
  const auto keys = sequence.keys();
  const std::int32_t width = limits_.kv.block_tokens;
  const std::int32_t last = std::min(end / width, static_cast<std::int32_t>(std::ssize(keys)));
  for (std::int32_t index = sequence.computed / width; index < last; ++index) {
    const auto i = static_cast<std::size_t>(index);
    cache_.insert(keys[i], sequence.blocks.blocks()[i]);
    step.cached_blocks.push_back(sequence.blocks.blocks()[i]);
  }
}

}  // namespace higgs_rt
