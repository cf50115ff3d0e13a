// The loop of the step thread: schedule -> forward -> sample -> publish.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "batch/step_batch.h"
#include "engine/engine.h"
#include "executor/batch_builder.h"
#include "executor/executor.h"
#include "executor/mailbox.h"
#include "executor/scheduler.h"
#include "executor/sequence.h"
#include "kv/block_pool.h"
#include "sampler/sampler.h"

namespace higgs_rt {

// Owns the running sequences and their sampler rows. A preempted sequence stays among them and
// keeps its row, so its sampling goes on where it was. Everything here runs on the step thread.
class StepLoop {
 public:
  StepLoop(Engine& engine, Sampler& sampler, const ExecutorConfig& config, Mailbox& mailbox,
           BlockPool& pool);

  // Runs until the mailbox is stopped, then cancels what is left. A failure outside a request's own
  // work stops the mailbox and ends every request with its message.
  void run();

 private:
  using SequencePtr = std::unique_ptr<Sequence>;

  void apply_cancels();
  std::vector<BatchItem> schedule();
  Plan plan_step() const;
  Sequence* admit();
  bool begin(Sequence& sequence);
  void run_step(std::span<const BatchItem> items);
  void forward(std::span<const BatchItem> items);
  void sample();
  void publish(std::span<const BatchItem> items);
  void publish_column(Sequence& sequence, std::span<const std::int32_t> column, SampledRow sampled);
  bool deliver_last_column(Sequence& sequence, bool ended);
  void fail_items(std::span<const BatchItem> items, const std::string& error);
  void end(Sequence& sequence, FinishReason reason, const std::string& error);
  void finish(SequencePtr sequence, FinishReason reason, const std::string& error);
  void end_all(FinishReason reason, const std::string& error);
  void flush_counts();

  Engine& engine_;
  Sampler& sampler_;
  Mailbox& mailbox_;
  BlockPool& pool_;
  const SchedulerLimits limits_;

  std::vector<SequencePtr> running_;     // in order of admission
  std::vector<std::int32_t> free_rows_;  // sampler rows, stack
  bool idle_ = true;                     // the last plan had no work
  StepBatch batch_;
  StepOutput output_;
  std::vector<std::int32_t> columns_;  // [logit rows, num_codebooks] of this step
  std::vector<SampledRow> sampled_;    // [logit rows]
  Mailbox::StepCounts counts_;         // not yet in the mailbox
};

}  // namespace higgs_rt
