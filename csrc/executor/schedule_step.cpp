// What the step loop does before a step: plan, preempt, admit, and collect the step's rows.
#include <algorithm>
#include <exception>

#include "executor/step_loop.h"

namespace higgs_rt {

Plan StepLoop::plan_step() {
  views_.clear();
  for (const SequencePtr& item : running_) {
    adopt_computed(*item);
    SequenceView& view = views_.emplace_back(view_of(*item));
    // One whose last column is in flight has nothing to compute; it counts as paused until then.
    const bool complete = item->num_columns() + item->pending >= item->max_columns();
    view.paused = complete || item->sink().paused();
  }
  queued_.clear();
  const auto free_rows = static_cast<std::int32_t>(free_rows_.size());
  for (Sequence* item : mailbox_.peek(free_rows)) queued_.push_back(view_of(*item));
  return make_plan(limits_, views_, queued_, pool_.num_free(), held_steps_, pool_.references(),
                   prompt_turns_);
}

// A second step of prompts behind one that runs would take in the few requests that are there now;
// the others of a burst come while it runs.
bool StepLoop::is_early(const Plan& plan) const {
  if (prompt_turns_ == 0 || plan.decode || plan.admit == 0) return false;
  std::int32_t rows = 0;
  for (const Plan::Work& work : plan.work) rows += work.rows;
  return limits_.separate_decode && rows < limits_.max_step_tokens / 2;
}

void StepLoop::schedule() {
  items_.clear();
  Plan plan = plan_step();
  // Preemption: columns in flight may free what is missing, and are needed to compute again.
  if (!steps_.empty() && (!plan.preempt.empty() || is_early(plan))) {
    drain();
    plan = plan_step();
  }
  idle_ = plan.work.empty();
  held_steps_ = plan.held ? held_steps_ + 1 : 0;
  prompt_turns_ = plan.work.empty() || plan.decode ? 0 : prompt_turns_ + 1;
  members_.clear();
  for (const SequencePtr& item : running_) members_.push_back(item.get());
  for (const std::int32_t index : plan.preempt) {
    members_[static_cast<std::size_t>(index)]->blocks.clear();
    members_[static_cast<std::size_t>(index)]->computed = 0;
    ++counts_.preemptions;
  }
  for (std::int32_t i = 0; i < plan.admit; ++i) members_.push_back(admit());
  for (const Plan::Work& work : plan.work) {
    Sequence* sequence = members_[static_cast<std::size_t>(work.sequence)];
    if (sequence == nullptr) continue;
    if (sequence->blocks.size() == 0) adopt_found(*sequence);
    items_.push_back({sequence, work.rows});
  }
  // Only now: what was found may be idle, and is kept from being used for others by its holders.
  for (const BatchItem& item : items_) item.sequence->blocks.reserve(item.sequence->planned_size());
  std::erase_if(items_, [](const BatchItem& item) { return item.rows == 0; });
}

// Null when the request ended at once.
Sequence* StepLoop::admit() {
  running_.push_back(mailbox_.take_front());
  Sequence& sequence = *running_.back();
  sequence.row = free_rows_.back();
  free_rows_.pop_back();
  return begin(sequence) ? &sequence : nullptr;
}

bool StepLoop::begin(Sequence& sequence) {
  try {
    const SamplingParams& sampling = sequence.sampling();
    sampler_.open_row(sequence.row, sampling, sequence.history(sampling.ras_window));
    sequence.sink().on_started();
  } catch (const std::exception& error) {
    end(sequence, FinishReason::kError, error.what());
    return false;
  }
  if (!deliver_last_column(sequence, false)) return false;
  if (sequence.max_columns() > 1) return true;
  end(sequence, FinishReason::kLength, "");
  return false;
}

}  // namespace higgs_rt
