// The loop of the step thread: schedule -> forward -> sample -> publish.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "batch/step_batch.h"
#include "core/device.h"
#include "engine/engine.h"
#include "executor/batch_builder.h"
#include "executor/executor.h"
#include "executor/mailbox.h"
#include "executor/scheduler.h"
#include "executor/sequence.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"
#include "sampler/sampler.h"

namespace higgs_rt {

// A block of a prompt goes into the prefix cache when the step that completes it has been enqueued:
// the steps that find it there are enqueued later, and the device works in order.
//
// Owns the running sequences and their sampler rows. A preempted sequence stays among them and
// keeps its row, so its sampling goes on where it was. Everything here runs on the step thread.
//
// With an asynchronous engine a step is enqueued before the columns of the one before it have been
// fetched, so that the device never waits for the host. What such a step cannot know: a sequence
// that turns out to have ended computes one row for nothing. Its blocks and its sampler row are
// used again at once, as the device works in order. Preemption waits for the steps in flight. With
// any other engine no step is in flight while the next one is made. A step of prompts alone has no
// columns to fetch; it is waited for all the same, so that plans are made one step ahead and no
// earlier.
class StepLoop {
 public:
  StepLoop(Engine& engine, Sampler& sampler, const ExecutorConfig& config, Mailbox& mailbox,
           BlockPool& pool, PrefixCache& cache, std::function<void()> after_step = {});
  ~StepLoop();
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  // Runs until the mailbox is stopped, then cancels what is left. A failure outside a request's own
  // work stops the mailbox and ends every request with its message.
  void run();

 private:
  using SequencePtr = std::unique_ptr<Sequence>;

  // A step that has been enqueued.
  struct Step {
    struct Member {
      Sequence* sequence = nullptr;  // null: it has ended since
      bool has_column = false;
    };
    std::vector<Member> members;
    std::vector<std::int32_t> cached_blocks;  // that went into the prefix cache with it
    std::size_t num_columns = 0;
    std::unique_ptr<DeviceEvent> done;  // of a step in flight without columns to wait for
  };

  bool wait_for_work();
  bool turn();
  void apply_cancels();
  void schedule();
  Plan plan_step();
  bool is_early(const Plan& plan) const;
  SequenceView view_of(Sequence& sequence);
  void adopt_found(Sequence& sequence);
  void adopt_computed(Sequence& sequence);
  void cache_prefix(const Sequence& sequence, std::int32_t end, Step& step);
  Sequence* admit();
  bool begin(Sequence& sequence);
  void run_step(std::span<const BatchItem> items);
  void run_one_by_one(std::span<const BatchItem> items);
  void forward(std::span<const BatchItem> items);
  void sample();
  void note_step(std::span<const BatchItem> items);
  void drain();
  void publish_oldest();
  void fail_unproved(const std::string& error);
  void fetch(const Step& step);
  void publish_column(Sequence& sequence, std::span<const std::int32_t> column, SampledRow sampled);
  bool deliver_last_column(Sequence& sequence, bool ended);
  void fail_items(std::span<const BatchItem> items, const std::string& error);
  void end(Sequence& sequence, FinishReason reason, const std::string& error);
  void finish(SequencePtr sequence, FinishReason reason, const std::string& error);
  void end_all(FinishReason reason, const std::string& error);
  bool is_running(const Sequence* sequence) const;
  void flush_counts();

  Engine& engine_;
  Sampler& sampler_;
  Mailbox& mailbox_;
  BlockPool& pool_;
  PrefixCache& cache_;
  const SchedulerLimits limits_;
  const std::size_t max_in_flight_;  // steps that may be left unpublished when one is enqueued
  const std::function<void()> after_step_;

  std::vector<SequencePtr> running_;     // in order of admission
  std::vector<std::int32_t> free_rows_;  // sampler rows, stack
  std::deque<Step> steps_;               // in flight, oldest first
  Step unproved_;                        // published since columns were fetched: may have failed
  bool idle_ = true;                     // there was no work, and nothing has changed since
  std::int32_t held_steps_ = 0;          // since waiting sequences were held first
  std::int32_t prompt_turns_ = 0;        // steps of prompt rows since one of decode rows
  StepBatch batch_;
  StepOutput output_;
  std::vector<BatchItem> items_;       // of the step being made
  std::vector<Sequence*> members_;     // running and admitted sequences, by the plan's index
  std::vector<SequenceView> views_;    // of running_, for the plan
  std::vector<SequenceView> queued_;   // of the waiting sequences
  std::vector<std::int32_t> columns_;  // [logit rows, num_codebooks] of the step being published
  std::vector<SampledRow> sampled_;    // [logit rows]
  Mailbox::StepCounts counts_;         // not yet in the mailbox
};

}  // namespace higgs_rt
