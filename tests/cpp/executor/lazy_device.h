// A device that works as late as it may: what is enqueued runs only when somebody waits for it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/check.h"
#include "sampler/sampler.h"

namespace higgs_rt::testing {

class LazyQueue {
 public:
  // Returns the ticket of the work, for run_through().
  std::int64_t push(std::function<void()> work) {
    work_.push_back(std::move(work));
    return pushed_++;
  }
  void run_through(std::int64_t ticket) {
    for (; run_ <= ticket; ++run_) {
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      work();
    }
  }
  void run_all() { run_through(pushed_ - 1); }

 private:
  std::deque<std::function<void()>> work_;
  std::int64_t pushed_ = 0;
  std::int64_t run_ = 0;
};

// The CPU sampler behind such a queue: fetch() runs the queue up to its own step, and no further.
class LazySampler final : public Sampler {
 public:
  LazySampler(const SamplerSpec& spec, LazyQueue& queue)
      : inner_(make_cpu_sampler(spec)), queue_(queue) {}

  void open_row(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history) override {
    queue_.push([this, row, params, copy = std::vector(history.begin(), history.end())] {
      inner_->open_row(row, params, copy);
    });
  }
  void advance(const float* logits, std::span<const std::int32_t> rows) override {
    push_step([this, logits, copy = std::vector(rows.begin(), rows.end())] {
      inner_->advance(logits, copy);
    });
  }
  // Runs at once: called by work that is in the queue itself.
  void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) override {
    inner_->enqueue(logits, rows, count);
  }
  void deliver(std::span<const std::int32_t> rows) override {
    push_step([this, copy = std::vector(rows.begin(), rows.end())] { inner_->deliver(copy); });
  }
  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    check_internal(!steps_.empty(), "lazy_sampler", "expected a step to fetch");
    queue_.run_through(steps_.front());
    steps_.pop_front();
    inner_->fetch(columns, sampled);
  }
  const std::int32_t* last_columns() const override { return inner_->last_columns(); }

 private:
  void push_step(std::function<void()> work) {
    check_internal(steps_.size() < kMaxSteps, "lazy_sampler", "too many steps in flight");
    steps_.push_back(queue_.push(std::move(work)));
  }

  std::unique_ptr<Sampler> inner_;
  LazyQueue& queue_;
  std::deque<std::int64_t> steps_;  // tickets of those that wait to be fetched
};

}  // namespace higgs_rt::testing
