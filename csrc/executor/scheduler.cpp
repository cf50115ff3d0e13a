#include "executor/scheduler.h"

#include <algorithm>
#include <unordered_map>

namespace higgs_rt {
namespace {

constexpr std::int32_t kDecodeRowsPerHeldStep = 8;
constexpr std::int32_t kMostPromptTurns = 3;  // one after another, while no stream has begun

// Who holds which block while a plan is made: the pool's counts, and what the plan has changed.
class Holders {
 public:
  explicit Holders(std::span<const std::int32_t> references) : references_(references) {}

  bool any(std::int32_t block) const { return count(block) > 0; }
  void take(std::int32_t block) { changed_[block] = count(block) + 1; }
  // True when the block has no holder any more.
  bool give_back(std::int32_t block) { return (changed_[block] = count(block) - 1) == 0; }

 private:
  std::int32_t count(std::int32_t block) const {
    const auto found = changed_.find(block);
    return found != changed_.end() ? found->second : references_[static_cast<std::size_t>(block)];
  }

  std::span<const std::int32_t> references_;
  std::unordered_map<std::int32_t, std::int32_t> changed_;
};

class Planner {
 public:
  Planner(const SchedulerLimits& limits, std::span<const SequenceView> running,
          std::int32_t free_blocks, std::span<const std::int32_t> references)
      : limits_(limits),
        all_(running.begin(), running.end()),
        state_(running.size(), State::kIdle),
        num_running_(static_cast<std::int32_t>(running.size())),
        free_(free_blocks),
        holders_(references),
        budget_(limits.max_step_tokens) {}

  Plan run(std::span<const SequenceView> waiting, std::int32_t held_steps,
           std::int32_t prompt_turns) {
    add_decodes();
    const std::ptrdiff_t decodes = std::ssize(plan_.work);
    const bool decode_turn = limits_.separate_decode && decodes > 0 && is_due(prompt_turns);
    if (limits_.separate_decode) budget_ = limits_.max_step_tokens;  // of a step of prompt rows
    add_others(waiting, held_steps, !decode_turn);
    plan_.decode = !plan_.work.empty() && !has_prompts_;
    if (!limits_.separate_decode) return std::move(plan_);
    if (plan_.decode) {
      std::ranges::stable_partition(plan_.work, [&](const auto& work) { return is_last(work); });
    } else {
      plan_.work.erase(plan_.work.begin(), plan_.work.begin() + decodes);
      for (Plan::Work& work : plan_.work) {
        if (is_decode(work.sequence)) work.rows = 0;
      }
    }
    return std::move(plan_);
  }

 private:
  enum class State : std::uint8_t { kIdle, kPlanned, kPreempted };

  void add_decodes() {
    for (const bool again : {false, true}) {
      for (std::int32_t i = 0; i < num_running_; ++i) {
        const bool is_last = all_[i].size - all_[i].computed == 1;
        if (all_[i].paused || !is_decode(i) || is_last == again || !secure(i)) continue;
        add_work(i);
        if (!limits_.separate_decode || all_[i].computed > all_[i].prompt) ++num_begun_;
      }
    }
  }

  bool is_due(std::int32_t prompt_turns) const {
    return prompt_turns > 0 && (num_begun_ > 0 || prompt_turns >= kMostPromptTurns);
  }

  // With `prompts` all that is not a decode row; without, sequences that start at a column.
  void add_others(std::span<const SequenceView> waiting, std::int32_t held_steps, bool prompts) {
    bool blocked = false;  // a sequence waits to start, so no other may start before it
    for (std::int32_t i = 0; i < num_running_ && budget_ > 0; ++i) {
      const bool starts = all_[i].blocks == 0;
      if (all_[i].paused || is_decode(i) || (starts && blocked)) continue;
      if (!prompts && prompt_left(all_[i]) > 0) {
        blocked = blocked || starts;
      } else {
        blocked = !add_other(i) || blocked;
      }
    }
    plan_.held = prompts && !blocked && !has_prompts_ && holds(waiting, held_steps);
    if (plan_.held) prompts = false;
    for (const SequenceView& next : waiting) {
      if (blocked || budget_ <= 0 || num_running_ + plan_.admit >= limits_.max_batch) break;
      all_.push_back(next);
      state_.push_back(State::kIdle);
      blocked = (!prompts && prompt_left(next) > 0) || !add_other(num_running_ + plan_.admit);
      if (!blocked) ++plan_.admit;
    }
  }

  bool add_other(std::int32_t i) {
    if (!secure(i)) return false;
    add_work(i);
    has_prompts_ = has_prompts_ || !limits_.separate_decode || !is_decode(i);
    return true;
  }

  // Rows that cannot be decode rows.
  std::int32_t prompt_left(const SequenceView& view) const {
    return (limits_.separate_decode ? view.prompt : view.size) - view.computed;
  }

  bool is_last(const Plan::Work& work) const {
    return all_[work.sequence].size - all_[work.sequence].computed == 1;
  }

  bool holds(std::span<const SequenceView> waiting, std::int32_t held_steps) const {
    const std::int32_t most = std::min(limits_.max_held_steps, num_begun_ / kDecodeRowsPerHeldStep);
    std::int64_t rows = 0;
    for (const SequenceView& next : waiting) rows += prompt_left(next);
    return rows > 0 && rows < limits_.max_step_tokens / 2 && held_steps < most;
  }

  bool is_decode(std::int32_t i) const {
    if (all_[i].blocks == 0) return false;
    return limits_.separate_decode ? all_[i].computed >= all_[i].prompt
                                   : all_[i].size - all_[i].computed == 1;
  }

  void add_work(std::int32_t i) {
    const std::int32_t end = !limits_.separate_decode ? all_[i].size
                             : is_decode(i)           ? all_[i].computed + 1
                                                      : all_[i].prompt;
    const std::int32_t rows = std::min(end - all_[i].computed, budget_);
    plan_.work.push_back({i, rows});
    budget_ -= rows;
    state_[i] = State::kPlanned;
  }

  // Gets sequence i blocks for its whole size, by preemption if need be; nothing changes when that
  // is impossible.
  bool secure(std::int32_t i) {
    if (state_[i] == State::kPreempted) return false;
    const std::int32_t reserve = all_[i].blocks == 0 ? reserve_for_others(i) : 0;
    const std::int32_t missing = missing_blocks(i, holders_);
    if (missing > 0 && free_ < missing + reserve && !preempt_for(i, reserve)) return false;
    take_blocks(i);
    return true;
  }

  // Preempts as many as it takes; none when that is impossible.
  bool preempt_for(std::int32_t i, std::int32_t reserve) {
    const bool starts = all_[i].blocks == 0;
    Holders holders = holders_;
    std::int32_t available = free_;
    std::vector<std::int32_t> victims;
    for (const std::int32_t victim : victims_of(i)) {
      victims.push_back(victim);
      available += give_back(victim, holders);
      if (starts && reserves(victim)) --reserve;
      if (available < missing_blocks(i, holders) + reserve) continue;
      for (const std::int32_t chosen : victims) preempt(chosen);
      return true;
    }
    return false;
  }

  // Free blocks that sequence i needs. Of the cached ones that it starts with, those that somebody
  // holds cost nothing.
  std::int32_t missing_blocks(std::int32_t i, const Holders& holders) const {
    const std::int32_t whole = limits_.kv.blocks_for(all_[i].size);
    if (all_[i].blocks > 0) return whole - all_[i].blocks;
    const auto held = std::ranges::count_if(all_[i].shared,
                                            [&](std::int32_t block) { return holders.any(block); });
    return whole - static_cast<std::int32_t>(held);
  }

  void take_blocks(std::int32_t i) {
    free_ -= missing_blocks(i, holders_);
    if (all_[i].blocks == 0) {
      for (const std::int32_t block : all_[i].shared) holders_.take(block);
    }
    all_[i].blocks = limits_.kv.blocks_for(all_[i].size);
  }

  // How many blocks become free when a sequence that holds blocks gives them back.
  std::int32_t give_back(std::int32_t i, Holders& holders) const {
    const auto& shared = all_[i].shared;
    const auto freed =
        std::ranges::count_if(shared, [&](std::int32_t block) { return holders.give_back(block); });
    return all_[i].blocks - static_cast<std::int32_t>(std::ssize(shared) - freed);
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
    free_ += give_back(victim, holders_);
    all_[victim].shared = {};
    all_[victim].blocks = 0;
    all_[victim].computed = 0;
    state_[victim] = State::kPreempted;
  }

  const SchedulerLimits& limits_;
  std::vector<SequenceView> all_;  // running, then admitted
  std::vector<State> state_;
  std::int32_t num_running_;
  std::int32_t free_;
  Holders holders_;
  std::int32_t budget_;
  std::int32_t num_begun_ = 0;  // decode rows behind a stream's first
  bool has_prompts_ = false;    // rows that are not decode rows
  Plan plan_;
};

}  // namespace

Plan make_plan(const SchedulerLimits& limits, std::span<const SequenceView> running,
               std::span<const SequenceView> waiting, std::int32_t free_blocks,
               std::int32_t held_steps, std::span<const std::int32_t> references,
               std::int32_t prompt_turns) {
  return Planner(limits, running, free_blocks, references).run(waiting, held_steps, prompt_turns);
}

}  // namespace higgs_rt
