// Requests, sinks and the plain reference for the executor's tests.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "executor/executor.h"
#include "executor/fake_engine.h"

namespace higgs_rt::testing {

using Random = std::mt19937;

inline std::int32_t draw(Random& random, std::int32_t low, std::int32_t high) {
  return std::uniform_int_distribution<std::int32_t>(low, high)(random);
}

PromptSegment text_segment(std::vector<std::int32_t> ids);
// A request of one text segment and max_columns.
Request text_request(std::vector<std::int32_t> ids, std::int32_t max_columns,
                     std::uint64_t seed = 0);
// Text, audio and table segments, all sampling parameters, at most `max_columns` columns.
Request random_request(Random& random, const EngineSpec& spec, std::int32_t max_columns);
std::int32_t prompt_positions(const Request& request, const EngineSpec& spec);

struct Answer {
  std::vector<std::int32_t> columns;  // [n, num_codebooks]
  FinishReason reason = FinishReason::kNone;
  std::string error;
};

// The columns of a request alone, without executor, batches or a cache: the expansion of
// specification 4.5 and 5 written out again, one hash and one sampler step a column.
Answer reference_answer(const Request& request, const EngineSpec& spec);

// Collects the answer and checks the order of calls.
class CollectingSink : public ColumnSink {
 public:
  void on_started() override;
  void on_column(std::span<const std::int32_t> column, bool ended) override;
  void on_finish(FinishReason reason, const std::string& error) override;
  bool paused() const override { return paused_; }

  // Pauses by itself once this many columns have come. Set before submit.
  std::int32_t pause_at = -1;
  // Called after each column with the number of columns. Set before submit.
  std::function<void(std::int32_t)> on_count;
  // The request starts, and the step thread goes on, when this is there. Set before submit.
  std::shared_future<void> start;

  void set_paused(bool paused) { paused_ = paused; }
  std::int32_t count() const { return count_; }
  bool finished() const;
  // False when nothing finished in time.
  bool wait(std::chrono::seconds timeout = std::chrono::seconds(60));
  Answer answer() const;
  std::string misuse() const;  // calls out of order; "" when there were none

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Answer answer_;
  std::string misuse_;
  bool started_ = false;
  bool ended_ = false;
  int finishes_ = 0;
  std::atomic<bool> paused_{false};
  std::atomic<std::int32_t> count_{0};
};

// A request of a random schedule.
struct Client {
  Request request;
  std::shared_ptr<CollectingSink> sink = std::make_shared<CollectingSink>();
  std::uint64_t id = 0;
  std::int32_t cancel_at = -1;  // columns; -1 never

  // Before submit: starts with `gate`, which opens when the id is known, and is cancelled by the
  // step thread itself, so that neither depends on how soon other threads run.
  void start_behind(const std::shared_future<void>& gate, Executor& executor);
};

// How the engine works: as on the CPU, as on CUDA (asynchronous, decode rows in steps of their
// own), and asynchronously without running the tail.
enum class Mode { kPlain, kPipelined, kPipelinedNoTail };
inline constexpr std::array kModes = {Mode::kPlain, Mode::kPipelined, Mode::kPipelinedNoTail};

EngineSpec in_mode(EngineSpec spec, Mode mode);
std::unique_ptr<Sampler> make_rig_sampler(FakeEngine& engine, std::int32_t rows, Mode mode);

// A TEST whose body runs once for each `mode`.
#define EACH_MODE(name) HIGGS_EACH_MODE(name, HIGGS_JOIN(mode_case_, __LINE__))
#define HIGGS_EACH_MODE(name, body)            \
  static void body(Mode mode);                 \
  TEST(name) {                                 \
    for (const Mode mode : kModes) body(mode); \
  }                                            \
  static void body([[maybe_unused]] Mode mode)

// Engine, real CPU sampler and executor.
struct Rig {
  Rig(const EngineSpec& spec, const ExecutorConfig& config, Mode mode = Mode::kPlain);
  // Shuts down and checks that nothing leaked: blocks, requests, broken batches.
  void check_clean();

  FakeEngine engine;
  std::unique_ptr<Sampler> sampler;
  Executor executor;
};

// 256 blocks of 4 positions.
EngineSpec roomy_spec();
// Sequences of at most 200 positions, 16 rows a step.
ExecutorConfig small_config(std::int32_t max_batch = 4, std::int32_t max_queue = 256);
// 3 text ids and 190 columns, greedy.
Request long_request();
// The code of the Error that `body` throws; it is a failure when it throws none.
ErrorCode code_of(const std::function<void()>& body);

// Holds the step thread inside forward() until release(). Set up while the engine is idle.
class Gate {
 public:
  explicit Gate(FakeEngine& engine) {
    engine.before_step = [state = state_](const StepBatch&) {
      std::unique_lock lock(state->mutex);
      state->reached = true;
      state->changed.notify_all();
      state->changed.wait(lock, [&] { return state->open; });
    };
  }
  ~Gate() { release(); }
  void wait_reached() {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->reached; });
  }
  void release() {
    const std::scoped_lock lock(state_->mutex);
    state_->open = true;
    state_->changed.notify_all();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool reached = false;
    bool open = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Compares with reference_answer(); a cancelled request must have a prefix.
void expect_reference(const CollectingSink& sink, const Request& request, const EngineSpec& spec,
                      bool may_be_cancelled = false);

}  // namespace higgs_rt::testing
