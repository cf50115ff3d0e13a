// What the step loop does with the columns of a step: fetch, hand to the sinks, end sequences.
#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <utility>

#include "core/trace.h"
#include "executor/step_loop.h"

namespace higgs_rt {

void StepLoop::drain() {
  while (!steps_.empty()) publish_oldest();
}

void StepLoop::publish_oldest() {
  const TraceRange trace("publish");
  const Step step = std::move(steps_.front());
  steps_.pop_front();
  unproved_.members.insert(unproved_.members.end(), step.members.begin(), step.members.end());
  unproved_.cached_blocks.insert(unproved_.cached_blocks.end(), step.cached_blocks.begin(),
                                 step.cached_blocks.end());
  try {
    fetch(step);
  } catch (const std::exception& error) {
    return fail_unproved(error.what());
  }
  if (step.num_columns != 0 || max_in_flight_ == 0) unproved_ = {};
  const auto width = static_cast<std::size_t>(engine_.spec().num_codebooks);
  std::size_t next = 0;
  for (const Step::Member& member : step.members) {
    if (!member.has_column) continue;
    const std::size_t index = next++;
    if (member.sequence == nullptr) continue;
    --member.sequence->pending;
    publish_column(*member.sequence, std::span(columns_).subspan(index * width, width),
                   sampled_[index]);
  }
}

// Nobody knows what the steps have left in their blocks: ends the sequences that took part in them,
// and those that have found such a block in the prefix cache.
void StepLoop::fail_unproved(const std::string& error) {
  cache_.clear();
  const Step failed = std::exchange(unproved_, {});
  std::vector<Sequence*> ended;
  for (const SequencePtr& item : running_) {
    const bool took_part = std::ranges::any_of(
        failed.members, [&](const Step::Member& member) { return member.sequence == item.get(); });
    const bool holds_block = std::ranges::any_of(item->blocks.blocks(), [&](std::int32_t block) {
      return std::ranges::find(failed.cached_blocks, block) != failed.cached_blocks.end();
    });
    if (took_part || holds_block) ended.push_back(item.get());
  }
  for (Sequence* sequence : ended) end(*sequence, FinishReason::kError, error);
}

// Waits for a step and takes its columns.
void StepLoop::fetch(const Step& step) {
  const TraceRange trace("fetch");
  columns_.resize(step.num_columns * static_cast<std::size_t>(engine_.spec().num_codebooks));
  sampled_.assign(step.num_columns, SampledRow{});
  const auto start = std::chrono::steady_clock::now();
  if (step.num_columns != 0) {
    sampler_.fetch(columns_, sampled_);
  } else if (step.done) {
    step.done->wait();
  } else {
    return;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  counts_.sample_seconds += seconds;
  if (max_in_flight_ != 0) counts_.wait_seconds += seconds;
  const DeviceSeconds device = engine_.device_seconds();
  counts_.device_seconds += device.all;
  counts_.graph_seconds += device.graphs;
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

}  // namespace higgs_rt
