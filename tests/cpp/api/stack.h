// Engine, sampler and executor put together by hand, so that a test may choose the device and
// whether decode steps run as graphs, one ahead of the host.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "core/device.h"
#include "core/thread_pool.h"
#include "engine/factory.h"
#include "executor/executor.h"
#include "require_cuda.h"
#include "sampler/sampler.h"

namespace higgs_rt::testing {

struct Columns {
  std::vector<std::int32_t> ids;  // [n, num_codebooks]
  FinishReason reason = FinishReason::kNone;
  std::string error;
  bool operator==(const Columns& other) const {
    return ids == other.ids && reason == other.reason && error == other.error;
  }
};

class ColumnCollector final : public ColumnSink {
 public:
  // Its request starts when `gate` opens, and the step thread waits for that.
  explicit ColumnCollector(std::shared_future<void> gate = {}) : gate_(std::move(gate)) {}

  void on_started() override {
    if (gate_.valid()) gate_.wait();
  }
  void on_column(std::span<const std::int32_t> column, bool) override {
    const std::scoped_lock lock(mutex_);
    columns_.ids.insert(columns_.ids.end(), column.begin(), column.end());
  }
  void on_finish(FinishReason reason, const std::string& error) override {
    const std::scoped_lock lock(mutex_);
    columns_.reason = reason;
    columns_.error = error;
    changed_.notify_all();
  }
  Columns wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return columns_.reason != FinishReason::kNone; });
    return columns_;
  }

 private:
  std::shared_future<void> gate_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Columns columns_;
};

struct Stack {
  // `asynchronous`: see EngineConfig.
  Stack(std::unique_ptr<Device> the_device, EngineConfig config,
        std::optional<bool> asynchronous = std::nullopt)
      : device(std::move(the_device)), pool(2) {
    config.asynchronous = asynchronous;
    loaded = load_engine(config, *device, pool);
    const EngineSpec& spec = loaded.engine->spec();
    sampler = make_sampler({spec.max_sequences, spec.num_codebooks, spec.codebook_vocab}, *device);
    executor = std::make_unique<Executor>(*loaded.engine, *sampler,
                                          ExecutorConfig{.max_batch = spec.max_sequences,
                                                         .max_queue = 4096,
                                                         .max_step_tokens = spec.max_rows,
                                                         .max_sequence = spec.max_positions});
  }

  // All at once, however slow this thread is: none starts before the last one waits. Answers in
  // order.
  std::vector<Columns> run(const std::vector<Request>& requests) {
    std::promise<void> all_wait;
    const std::shared_future<void> gate = all_wait.get_future().share();
    std::vector<std::shared_ptr<ColumnCollector>> sinks;
    for (const Request& request : requests) {
      sinks.push_back(std::make_shared<ColumnCollector>(gate));
      executor->submit(request, sinks.back());
    }
    all_wait.set_value();
    std::vector<Columns> answers;
    for (const auto& sink : sinks) answers.push_back(sink->wait());
    return answers;
  }

  std::unique_ptr<Device> device;
  ThreadPool pool;
  LoadedEngine loaded;
  std::unique_ptr<Sampler> sampler;
  std::unique_ptr<Executor> executor;
};

}  // namespace higgs_rt::testing
