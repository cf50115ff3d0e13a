// Which sequences take part in the next step: pure policy, no state, no threads.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kv/kv_layout.h"

namespace higgs_rt {

struct SchedulerLimits {
  std::int32_t max_batch = 0;        // sequences admitted at the same time
  std::int32_t max_step_tokens = 0;  // rows of one step; more than max_batch
  KvLayout kv;
  // Blocks that a sequence can come to hold. One that holds them needs none in reserve.
  std::int32_t max_sequence_blocks = std::numeric_limits<std::int32_t>::max();
  std::int32_t max_held_steps = 0;  // ExecutorConfig::max_held_steps
  bool separate_decode = false;     // EngineSpec::separate_decode
};

// What the policy knows about a sequence. One that waits or was preempted has no blocks; `computed`
// is then what the prefix cache has for it.
struct SequenceView {
  std::int32_t size = 0;      // positions known: prompt and columns
  std::int32_t computed = 0;  // positions whose keys and values are cached
  std::int32_t blocks = 0;    // blocks held
  bool paused = false;
  // The blocks that it holds and may share with others (empty: all are its own), or, while it has
  // none, the cached ones that it starts with.
  std::span<const std::int32_t> shared = {};
  std::int32_t prompt = 0;  // with separate_decode: of `size`, those that are prompt rows
};

// Apply in this order: preempt, admit, work. Of the work, `shared` blocks are taken before others.
struct Plan {
  struct Work {
    std::int32_t sequence;  // index into `running`; admitted sequences follow in their order
    std::int32_t rows;      // the next positions to compute; 0: it takes its blocks, see below
  };
  std::vector<std::int32_t> preempt;  // indices into `running`: give back all blocks
  std::int32_t admit = 0;             // sequences taken from the front of `waiting`
  std::vector<Work> work;             // each needs blocks for its whole `size`
  bool held = false;                  // waiting sequences could start and were held (below)
  bool decode = false;                // the work is decode rows alone
};

// `running`: in order of admission. `waiting`: in order of arrival. `free_blocks`: not held by any.
// `references` [num_blocks]: how many hold a block; needed when any view has `shared` blocks.
//
// Decode rows come first, then prompts (and recomputation) in chunks, oldest first, within
// max_step_tokens; a running stream therefore never waits for a prompt. A sequence that lacks
// blocks takes them from paused sequences, most recently admitted first, then from more recently
// admitted ones that are not part of this step. A prompt starts only when all its blocks are there
// and one is left for every running sequence that may need it, and nothing younger starts before
// it. When any sequence is not paused and each fits the pool alone, the plan has work, and the
// oldest of them is never preempted.
//
// A step with prompt rows costs every running stream more than one without, and little more for
// many prompts than for one. So waiting sequences are held while there are decode rows alone, until
// half a step's rows wait or they have been held for `held_steps` steps: as many as max_held_steps
// says, and no more than one for every 8 streams that have begun (below).
//
// With separate_decode a plan has decode rows or prompt rows, in turn while there are both:
// `prompt_turns` says how many plans of prompt rows came last. So a running stream waits for one
// step of prompts at a time, and one whose prompt has ended joins the next step of decode rows. Up
// to three steps of prompts follow each other while no stream has begun, that is, got a column from
// a decode row: a burst is not interrupted for the first columns of its first half. Decode rows are
// one row each, also where a sequence is computed again; those come after the others. A sequence
// whose prompt was found as a whole has decode rows only, and joins a step of decode rows without
// being held; with a step of prompts it is admitted and takes its blocks (0 rows).
Plan make_plan(const SchedulerLimits& limits, std::span<const SequenceView> running,
               std::span<const SequenceView> waiting, std::int32_t free_blocks,
               std::int32_t held_steps = 0, std::span<const std::int32_t> references = {},
               std::int32_t prompt_turns = 0);

}  // namespace higgs_rt
