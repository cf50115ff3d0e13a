// Everything that other threads leave for the step thread, and what they may read from it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "executor/sequence.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

// The bounded queue of waiting sequences, cancellations, wake-ups, the order to stop, and the
// statistics, under one mutex, so that a snapshot of the statistics adds up: submitted = finished +
// cancelled + failed + running + waiting. No callback is called under the mutex.
class Mailbox {
 public:
  using SequencePtr = std::unique_ptr<Sequence>;

  Mailbox(std::int32_t max_queue, std::int32_t total_blocks);

  // Any thread.
  // Queues a sequence and returns its id (from 1). Throws kResourceExhausted when the queue is full
  // and kUnavailable after stop().
  std::uint64_t push(SequencePtr sequence);
  void cancel(std::uint64_t id);
  void wake();
  void stop();
  // stop(), and push() gives `reason` from now on.
  void stop_because(const std::string& reason);
  void count_refusal();
  RuntimeStats stats() const;

  // Step thread.
  // Returns true at once when `idle` is false; otherwise waits for a push, cancel or wake since the
  // last call. Returns false after stop().
  bool wait_for_work(bool idle);
  // Every id once, so that whoever cancels a request again and again costs the steps nothing more.
  std::set<std::uint64_t> take_cancels();
  // The first `limit` waiting sequences, which stay until the step thread takes them.
  std::vector<Sequence*> peek(std::int32_t limit) const;
  // The first waiting sequence; from now on it counts as running.
  SequencePtr take_front();
  // A waiting sequence by id, or null; from now on it counts as running.
  SequencePtr take(std::uint64_t id);
  // A running sequence has ended.
  void count_end(FinishReason reason);

  struct StepCounts {
    std::int64_t preemptions = 0;
    std::int64_t steps = 0;
    std::int64_t graph_steps = 0;
    std::int64_t graph_rows = 0;
    std::int64_t columns = 0;
    std::int64_t prompt_rows = 0;
    std::int64_t prefix_positions = 0;
    std::int64_t prefix_hits = 0;
    std::int64_t prefix_evictions = 0;
    std::int32_t free_blocks = 0;
    std::int32_t cached_blocks = 0;
    double forward_seconds = 0;
    double sample_seconds = 0;
    double wait_seconds = 0;
    double device_seconds = 0;
    double graph_seconds = 0;
    double step_seconds = 0;
  };
  // Adds everything but free_blocks, cached_blocks and prefix_evictions, which replace the last
  // values.
  void count_step(const StepCounts& counts);

 private:
  void signal();

  const std::int32_t max_queue_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<SequencePtr> waiting_;
  std::set<std::uint64_t> cancels_;
  std::uint64_t next_id_ = 1;
  bool signalled_ = false;
  bool stopped_ = false;
  std::string stop_reason_ = "the runtime is shutting down";
  RuntimeStats stats_;
};

}  // namespace higgs_rt
