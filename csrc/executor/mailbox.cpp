#include "executor/mailbox.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

Mailbox::Mailbox(std::int32_t max_queue, std::int32_t total_blocks) : max_queue_(max_queue) {
  stats_.total_blocks = total_blocks;
  stats_.free_blocks = total_blocks;
}

void Mailbox::signal() {
  signalled_ = true;
  changed_.notify_one();
}

std::uint64_t Mailbox::push(SequencePtr sequence) {
  const std::scoped_lock lock(mutex_);
  if (stopped_) {
    ++stats_.refused;
    fail(ErrorCode::kUnavailable, "submit", "expected a running executor, got: ", stop_reason_);
  }
  if (static_cast<std::int32_t>(waiting_.size()) >= max_queue_) {
    ++stats_.refused;
    fail(ErrorCode::kResourceExhausted, "submit", "expected fewer than max_queue ", max_queue_,
         " waiting requests, got ", waiting_.size());
  }
  const std::uint64_t id = next_id_++;
  sequence->id = id;
  waiting_.push_back(std::move(sequence));
  ++stats_.submitted;
  ++stats_.waiting;
  signal();
  return id;
}

void Mailbox::cancel(std::uint64_t id) {
  const std::scoped_lock lock(mutex_);
  if (stopped_) return;
  cancels_.insert(id);
  signal();
}

void Mailbox::wake() {
  const std::scoped_lock lock(mutex_);
  signal();
}

void Mailbox::stop() {
  const std::scoped_lock lock(mutex_);
  stopped_ = true;
  signal();
}

void Mailbox::stop_because(const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  stop_reason_ = reason;
  stopped_ = true;
  signal();
}

void Mailbox::count_refusal() {
  const std::scoped_lock lock(mutex_);
  ++stats_.refused;
}

RuntimeStats Mailbox::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

bool Mailbox::wait_for_work(bool idle) {
  std::unique_lock lock(mutex_);
  if (idle) changed_.wait(lock, [&] { return signalled_; });
  signalled_ = false;
  return !stopped_;
}

std::set<std::uint64_t> Mailbox::take_cancels() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(cancels_, {});
}

std::vector<Sequence*> Mailbox::peek(std::int32_t limit) const {
  const std::scoped_lock lock(mutex_);
  const auto count = std::min(waiting_.size(), static_cast<std::size_t>(limit));
  std::vector<Sequence*> first;
  first.reserve(count);
  for (std::size_t i = 0; i < count; ++i) first.push_back(waiting_[i].get());
  return first;
}

Mailbox::SequencePtr Mailbox::take_front() {
  const std::scoped_lock lock(mutex_);
  if (waiting_.empty()) return nullptr;
  SequencePtr sequence = std::move(waiting_.front());
  waiting_.pop_front();
  --stats_.waiting;
  ++stats_.running;
  return sequence;
}

Mailbox::SequencePtr Mailbox::take(std::uint64_t id) {
  const std::scoped_lock lock(mutex_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const SequencePtr& sequence) { return sequence->id == id; });
  if (found == waiting_.end()) return nullptr;
  SequencePtr sequence = std::move(*found);
  waiting_.erase(found);
  --stats_.waiting;
  ++stats_.running;
  return sequence;
}

void Mailbox::count_end(FinishReason reason) {
  const std::scoped_lock lock(mutex_);
  --stats_.running;
  if (reason == FinishReason::kCancelled) {
    ++stats_.cancelled;
  } else if (reason == FinishReason::kError) {
    ++stats_.failed;
  } else {
    ++stats_.finished;
  }
}

void Mailbox::count_step(const StepCounts& counts) {
  const std::scoped_lock lock(mutex_);
  stats_.preemptions += counts.preemptions;
  stats_.steps += counts.steps;
  stats_.graph_steps += counts.graph_steps;
  stats_.graph_rows += counts.graph_rows;
  stats_.columns += counts.columns;
  stats_.prompt_rows += counts.prompt_rows;
  stats_.prefix_positions += counts.prefix_positions;
  stats_.prefix_hits += counts.prefix_hits;
  stats_.prefix_evictions = counts.prefix_evictions;
  stats_.free_blocks = counts.free_blocks;
  stats_.cached_blocks = counts.cached_blocks;
  stats_.forward_seconds += counts.forward_seconds;
  stats_.sample_seconds += counts.sample_seconds;
  stats_.wait_seconds += counts.wait_seconds;
  stats_.device_seconds += counts.device_seconds;
  stats_.graph_seconds += counts.graph_seconds;
  stats_.step_seconds += counts.step_seconds;
}

}  // namespace higgs_rt
