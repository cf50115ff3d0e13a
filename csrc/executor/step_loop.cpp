#include "executor/step_loop.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <utility>

#include "core/check.h"

namespace higgs_rt {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

StepLoop::StepLoop(Engine& engine, Sampler& sampler, const ExecutorConfig& config, Mailbox& mailbox,
                   BlockPool& pool)
    : engine_(engine),
      sampler_(sampler),
      mailbox_(mailbox),
      pool_(pool),
      limits_{config.max_batch, config.max_step_tokens, engine.spec().kv} {
  for (std::int32_t row = config.max_batch - 1; row >= 0; --row) free_rows_.push_back(row);
  output_.last_columns = sampler.last_columns();
}

void StepLoop::run() {
  try {
    while (mailbox_.wait_for_work(idle_)) {
      const Clock::time_point start = Clock::now();
      apply_cancels();
      const std::vector<BatchItem> items = schedule();
      if (items.empty()) continue;
      run_step(items);
      counts_.step_seconds += seconds_since(start);
      flush_counts();
    }
    end_all(FinishReason::kCancelled, "");
  } catch (const std::exception& error) {
    const std::string message = std::string("[executor] the step loop failed: ") + error.what();
    mailbox_.stop_because(message);
    end_all(FinishReason::kError, message);
  }
}

void StepLoop::run_step(std::span<const BatchItem> items) {
  try {
    forward(items);
  } catch (const Error& error) {
    // The cache is unchanged, so the culprit is found by running each sequence alone.
    if (items.size() == 1) return fail_items(items, error.what());
    for (std::size_t i = 0; i < items.size(); ++i) run_step(items.subspan(i, 1));
    return;
  } catch (const std::exception& error) {
    return fail_items(items, error.what());
  }
  try {
    sample();
  } catch (const std::exception& error) {
    return fail_items(items, error.what());
  }
  publish(items);
}

void StepLoop::forward(std::span<const BatchItem> items) {
  build_batch(items, engine_.spec(), batch_);
  const Clock::time_point start = Clock::now();
  engine_.forward(batch_, output_);
  counts_.forward_seconds += seconds_since(start);
  ++counts_.steps;
  counts_.prompt_rows += batch_.num_rows() - static_cast<std::int32_t>(batch_.logit_rows.size());
}

void StepLoop::sample() {
  const std::size_t count = batch_.sampler_rows.size();
  columns_.resize(count * static_cast<std::size_t>(engine_.spec().num_codebooks));
  sampled_.assign(count, SampledRow{});
  if (count == 0) return;
  const Clock::time_point start = Clock::now();
  sampler_.advance(output_.logits, batch_.sampler_rows);
  sampler_.fetch(columns_, sampled_);
  counts_.sample_seconds += seconds_since(start);
}

void StepLoop::publish(std::span<const BatchItem> items) {
  const auto width = static_cast<std::size_t>(engine_.spec().num_codebooks);
  std::size_t next = 0;
  for (const BatchItem& item : items) {
    const bool has_column = wants_logits(item);
    item.sequence->computed += item.rows;
    if (!has_column) continue;
    const auto column = std::span(columns_).subspan(next * width, width);
    publish_column(*item.sequence, column, sampled_[next]);
    ++next;
  }
}

void StepLoop::publish_column(Sequence& sequence, std::span<const std::int32_t> column,
                              SampledRow sampled) {
  if (sampled.failed) {
    end(sequence, FinishReason::kError,
        "[sampler] column " + std::to_string(sequence.num_columns()) +
            ": expected logits with a finite maximum, got NaN or nothing above -inf");
    return;
  }
  sequence.append_column(column);
  if (!deliver_last_column(sequence, sampled.finished)) return;
  if (sampled.finished) {
    end(sequence, FinishReason::kStop, "");
  } else if (sequence.num_columns() >= sequence.max_columns()) {
    end(sequence, FinishReason::kLength, "");
  }
}

// False when the sink broke its promise not to throw: that ended the sequence.
bool StepLoop::deliver_last_column(Sequence& sequence, bool ended) {
  ++counts_.columns;
  try {
    sequence.sink().on_column(sequence.last_column(), ended);
    return true;
  } catch (const std::exception& error) {
    end(sequence, FinishReason::kError, std::string("[executor] on_column threw: ") + error.what());
    return false;
  }
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

Plan StepLoop::plan_step() const {
  std::vector<SequenceView> running;
  running.reserve(running_.size());
  for (const SequencePtr& item : running_) {
    running.push_back({item->size(), item->computed, item->blocks.size(), item->sink().paused()});
  }
  std::vector<SequenceView> waiting;
  const auto free_rows = static_cast<std::int32_t>(free_rows_.size());
  for (const std::int32_t size : mailbox_.peek_sizes(free_rows)) waiting.push_back({.size = size});
  return make_plan(limits_, running, waiting, pool_.num_free());
}

std::vector<BatchItem> StepLoop::schedule() {
  const Plan plan = plan_step();
  idle_ = plan.work.empty();
  std::vector<Sequence*> members;
  members.reserve(running_.size() + static_cast<std::size_t>(plan.admit));
  for (const SequencePtr& item : running_) members.push_back(item.get());
  for (const std::int32_t index : plan.preempt) {
    members[static_cast<std::size_t>(index)]->blocks.clear();
    members[static_cast<std::size_t>(index)]->computed = 0;
    ++counts_.preemptions;
  }
  for (std::int32_t i = 0; i < plan.admit; ++i) members.push_back(admit());
  std::vector<BatchItem> items;
  for (const Plan::Work& work : plan.work) {
    Sequence* sequence = members[static_cast<std::size_t>(work.sequence)];
    if (sequence == nullptr) continue;
    sequence->blocks.reserve(sequence->size());
    items.push_back({sequence, work.rows});
  }
  return items;
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
}

void StepLoop::flush_counts() {
  counts_.free_blocks = pool_.num_free();
  mailbox_.count_step(std::exchange(counts_, {}));
}

}  // namespace higgs_rt
