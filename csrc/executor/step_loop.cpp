#include "executor/step_loop.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <utility>

#include "core/check.h"
#include "core/trace.h"

namespace higgs_rt {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

StepLoop::StepLoop(Engine& engine, Sampler& sampler, const ExecutorConfig& config, Mailbox& mailbox,
                   BlockPool& pool, PrefixCache& cache, std::function<void()> after_step)
    : engine_(engine),
      sampler_(sampler),
      mailbox_(mailbox),
      pool_(pool),
      cache_(cache),
      limits_{config.max_batch,      config.max_step_tokens,
              engine.spec().kv,      engine.spec().kv.blocks_for(config.max_sequence),
              config.max_held_steps, engine.spec().separate_decode},
      max_in_flight_(engine.spec().asynchronous ? Sampler::kMaxSteps - 1 : 0),
      after_step_(std::move(after_step)) {
  for (std::int32_t row = config.max_batch - 1; row >= 0; --row) free_rows_.push_back(row);
  output_.last_columns = sampler.last_columns();
  if (!engine.spec().asynchronous) return;
  engine.attach({output_.last_columns, config.max_batch,
                 [&sampler](const float* logits, const std::int32_t* rows, std::int32_t count) {
                   sampler.enqueue(logits, rows, count);
                 }});
}

StepLoop::~StepLoop() {
  if (!engine_.spec().asynchronous) return;
  try {
    engine_.attach({});
  } catch (const std::exception& error) {
    std::cerr << "[executor] the engine failed at the end: " << error.what() << '\n';
  }
}

void StepLoop::run() {
  try {
    while (wait_for_work()) {
      const Clock::time_point start = Clock::now();
      if (turn()) {
        counts_.step_seconds += seconds_since(start);
        flush_counts();
      }
      if (after_step_) after_step_();
    }
    end_all(FinishReason::kCancelled, "");
  } catch (const std::exception& error) {
    const std::string message = std::string("[executor] the step loop failed: ") + error.what();
    mailbox_.stop_because(message);
    end_all(FinishReason::kError, message);
  }
  engine_.rest();
  if (after_step_) after_step_();
}

// False: the executor stops.
bool StepLoop::wait_for_work() {
  const bool idle = idle_ && steps_.empty();
  if (idle) engine_.rest();
  return mailbox_.wait_for_work(idle);
}

// Enqueues the next step and publishes what is then due. False: there was nothing to do.
bool StepLoop::turn() {
  const TraceRange trace("step");
  apply_cancels();
  schedule();
  if (items_.empty()) {
    if (steps_.empty()) return false;
    publish_oldest();
    idle_ = false;  // there may be work now
    return true;
  }
  run_step(items_);
  while (steps_.size() > max_in_flight_) publish_oldest();
  return true;
}

void StepLoop::run_step(std::span<const BatchItem> items) {
  try {
    forward(items);
  } catch (const Error& error) {
    // The cache is unchanged, so the culprit is found by running each sequence alone.
    if (items.size() == 1) return fail_items(items, error.what());
    return run_one_by_one(items);
  } catch (const std::exception& error) {
    return fail_items(items, error.what());
  }
  try {
    sample();
  } catch (const std::exception& error) {
    return fail_items(items, error.what());
  }
  note_step(items);
}

void StepLoop::run_one_by_one(std::span<const BatchItem> items) {
  drain();
  for (const BatchItem& item : items) {
    if (!is_running(item.sequence)) continue;
    run_step({&item, 1});
    drain();
  }
}

void StepLoop::forward(std::span<const BatchItem> items) {
  build_batch(items, engine_.spec(), batch_);
  const Clock::time_point start = Clock::now();
  output_.sampled = output_.one_launch = false;
  engine_.forward(batch_, output_);
  counts_.forward_seconds += seconds_since(start);
  ++counts_.steps;
  if (output_.one_launch) {
    ++counts_.graph_steps;
    counts_.graph_rows += batch_.num_rows();
  }
  counts_.prompt_rows += batch_.num_rows() - static_cast<std::int32_t>(batch_.logit_rows.size());
}

void StepLoop::sample() {
  if (batch_.sampler_rows.empty()) return;
  const Clock::time_point start = Clock::now();
  if (output_.sampled) {
    sampler_.deliver(batch_.sampler_rows);
  } else {
    sampler_.advance(output_.logits, batch_.sampler_rows);
  }
  counts_.sample_seconds += seconds_since(start);
}

void StepLoop::note_step(std::span<const BatchItem> items) {
  Step& step = steps_.emplace_back();
  step.members.reserve(items.size());
  for (const BatchItem& item : items) {
    const bool has_column = wants_logits(item);
    step.members.push_back({item.sequence, has_column});
    cache_prefix(*item.sequence, item.sequence->computed + item.rows, step);
    item.sequence->computed += item.rows;
    item.sequence->pending += has_column ? 1 : 0;
    step.num_columns += has_column ? 1 : 0;
  }
  if (max_in_flight_ == 0 || step.num_columns != 0) return;
  step.done = engine_.device().make_event();
  step.done->record();
}

void StepLoop::apply_cancels() {
  for (const std::uint64_t id : mailbox_.take_cancels()) {
    const auto found = std::find_if(running_.begin(), running_.end(),
                                    [&](const SequencePtr& item) { return item->id == id; });
    if (found != running_.end()) {
      end(**found, FinishReason::kCancelled, "");
    } else if (SequencePtr waiting = mailbox_.take(id)) {
      finish(std::move(waiting), FinishReason::kCancelled, "");
    }
  }
}

void StepLoop::fail_items(std::span<const BatchItem> items, const std::string& error) {
  for (const BatchItem& item : items) end(*item.sequence, FinishReason::kError, error);
}

void StepLoop::end(Sequence& sequence, FinishReason reason, const std::string& error) {
  const auto found = std::find_if(running_.begin(), running_.end(),
                                  [&](const SequencePtr& item) { return item.get() == &sequence; });
  check_internal(found != running_.end(), "executor", "expected request ", sequence.id,
                 " to be running");
  SequencePtr owned = std::move(*found);
  running_.erase(found);
  const auto forget = [&](Step& step) {
    for (Step::Member& member : step.members) {
      if (member.sequence == &sequence) member.sequence = nullptr;
    }
  };
  std::ranges::for_each(steps_, forget);
  forget(unproved_);
  free_rows_.push_back(owned->row);
  finish(std::move(owned), reason, error);
}

// The counters are right before the caller hears of the end.
void StepLoop::finish(SequencePtr sequence, FinishReason reason, const std::string& error) {
  sequence->blocks.clear();
  flush_counts();
  mailbox_.count_end(reason);
  try {
    sequence->sink().on_finish(reason, error);
  } catch (const std::exception& failure) {
    std::cerr << "[executor] on_finish of request " << sequence->id
              << " threw, and must not: " << failure.what() << '\n';
  }
}

void StepLoop::end_all(FinishReason reason, const std::string& error) {
  while (!running_.empty()) end(*running_.back(), reason, error);
  while (SequencePtr waiting = mailbox_.take_front()) finish(std::move(waiting), reason, error);
  try {
    drain();  // nobody is left to hear of it, but the device must have done with it
  } catch (const std::exception&) {
    steps_.clear();
  }
}

bool StepLoop::is_running(const Sequence* sequence) const {
  return std::any_of(running_.begin(), running_.end(),
                     [&](const SequencePtr& item) { return item.get() == sequence; });
}

void StepLoop::flush_counts() {
  counts_.free_blocks = pool_.num_free();
  counts_.cached_blocks = cache_.size();
  counts_.prefix_evictions = cache_.evictions();
  mailbox_.count_step(std::exchange(counts_, {}));
}

}  // namespace higgs_rt
