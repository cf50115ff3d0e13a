#include "executor/scheduler.h"

#include <algorithm>

namespace higgs_rt {
namespace {

constexpr std::int32_t kDecodeRowsPerHeldStep = 8;

class Planner {
 public:
  Planner(const SchedulerLimits& limits, std::span<const SequenceView> running,
          std::int32_t free_blocks)
      : limits_(limits),
        all_(running.begin(), running.end()),
        state_(running.size(), State::kIdle),
        num_running_(static_cast<std::int32_t>(running.size())),
        free_(free_blocks),
        budget_(limits.max_step_tokens) {}

  Plan run(std::span<const SequenceView> waiting, std::int32_t held_steps) {
    for (std::int32_t i = 0; i < num_running_; ++i) {
      if (!all_[i].paused && is_decode(i) && secure(i)) add_work(i);
    }
    const auto decodes = static_cast<std::int32_t>(plan_.work.size());
    bool blocked = false;  // a sequence waits for blocks to start, so no other may start before it
    for (std::int32_t i = 0; i < num_running_ && budget_ > 0; ++i) {
      const bool starts = all_[i].blocks == 0;
      if (all_[i].paused || is_decode(i) || (starts && blocked)) continue;
      if (secure(i)) {
        add_work(i);
      } else {
        blocked = true;
      }
    }
    const bool mixed = std::ssize(plan_.work) > decodes;
    plan_.held = !blocked && !mixed && holds(waiting, decodes, held_steps);
    if (plan_.held) return std::move(plan_);
    for (const SequenceView& next : waiting) {
      if (blocked || budget_ <= 0 || num_running_ + plan_.admit >= limits_.max_batch) break;
      all_.push_back(next);
      state_.push_back(State::kIdle);
      blocked = !secure(num_running_ + plan_.admit);
      if (!blocked) add_work(num_running_ + plan_.admit++);
    }
    return std::move(plan_);
  }

 private:
  enum class State : std::uint8_t { kIdle, kPlanned, kPreempted };

  bool holds(std::span<const SequenceView> waiting, std::int32_t decodes,
             std::int32_t held_steps) const {
    const std::int32_t most = std::min(limits_.max_held_steps, decodes / kDecodeRowsPerHeldStep);
    std::int64_t rows = 0;
    for (const SequenceView& next : waiting) rows += next.size;
    return rows > 0 && rows < limits_.max_step_tokens / 2 && held_steps < most;
  }

  bool is_decode(std::int32_t i) const { return all_[i].size - all_[i].computed == 1; }

  void add_work(std::int32_t i) {
    const std::int32_t rows = std::min(all_[i].size - all_[i].computed, budget_);
    plan_.work.push_back({i, rows});
    budget_ -= rows;
    state_[i] = State::kPlanned;
  }

  // Gets sequence i blocks for its whole size, by preemption if need be; nothing changes when that
  // is impossible.
  bool secure(std::int32_t i) {
    if (state_[i] == State::kPreempted) return false;
    const bool starts = all_[i].blocks == 0;
    const std::int32_t missing = limits_.kv.blocks_for(all_[i].size) - all_[i].blocks;
    std::int32_t needed = missing + (starts ? reserve_for_others(i) : 0);
    std::int32_t available = free_;
    std::vector<std::int32_t> victims;
    if (missing > 0 && available < needed) {
      for (const std::int32_t victim : victims_of(i)) {
        victims.push_back(victim);
        available += all_[victim].blocks;
        if (starts && reserves(victim)) --needed;
        if (available >= needed) break;
      }
      if (available < needed) return false;
    }
    for (const std::int32_t victim : victims) preempt(victim);
    free_ -= missing;
    all_[i].blocks += missing;
    return true;
  }

  // A sequence that starts leaves one block to each that runs, lest it be preempted at once.
  std::int32_t reserve_for_others(std::int32_t i) const {
    std::int32_t count = 0;
    for (std::int32_t j = 0; j < num_running_; ++j) {
      if (j != i && reserves(j)) ++count;
    }
    return count;
  }

  bool reserves(std::int32_t j) const {
    return !all_[j].paused && all_[j].blocks > 0 && all_[j].blocks < limits_.max_sequence_blocks;
  }

  std::vector<std::int32_t> victims_of(std::int32_t i) const {
    std::vector<std::int32_t> victims;
    for (const bool paused : {true, false}) {
      for (std::int32_t j = num_running_ - 1; j >= 0; --j) {
        if (j == i || all_[j].blocks == 0 || state_[j] != State::kIdle) continue;
        if (all_[j].paused == paused && (paused || j > i)) victims.push_back(j);
      }
    }
    return victims;
  }

  void preempt(std::int32_t victim) {
    plan_.preempt.push_back(victim);
    free_ += all_[victim].blocks;
    all_[victim].blocks = 0;
    all_[victim].computed = 0;
    state_[victim] = State::kPreempted;
  }

  const SchedulerLimits& limits_;
  std::vector<SequenceView> all_;  // running, then admitted
  std::vector<State> state_;
  std::int32_t num_running_;
  std::int32_t free_;
  std::int32_t budget_;
  Plan plan_;
};

}  // namespace

Plan make_plan(const SchedulerLimits& limits, std::span<const SequenceView> running,
               std::span<const SequenceView> waiting, std::int32_t free_blocks,
               std::int32_t held_steps) {
  return Planner(limits, running, free_blocks).run(waiting, held_steps);
}

}  // namespace higgs_rt
