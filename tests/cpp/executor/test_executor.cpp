#include <limits>
#include <thread>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using Kind = PromptSegment::Kind;

EngineSpec roomy_spec() { return small_spec({.block_tokens = 4, .num_blocks = 256}); }

ExecutorConfig config(std::int32_t max_batch = 4, std::int32_t max_queue = 256) {
  return {
      .max_batch = max_batch, .max_queue = max_queue, .max_step_tokens = 16, .max_sequence = 200};
}

// Long enough not to end by itself within a test's time.
Request endless_request() {
  Request request = text_request({1, 2, 3}, 190);
  request.sampling.temperature = 0;
  return request;
}

ErrorCode code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  report(__FILE__, __LINE__, "expected an Error");
  return ErrorCode::kInternal;
}

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

void expect_refused(Executor& executor, const Request& request, const std::string& part) {
  const auto sink = std::make_shared<CollectingSink>();
  EXPECT_THROWS(executor.submit(request, sink), part);
  EXPECT(code_of([&] { executor.submit(request, sink); }) == ErrorCode::kInvalidArgument);
  EXPECT(!sink->finished());
}

}  // namespace

TEST("executor: stop, length and the single synthetic column") {
  Rig rig(roomy_spec(), config());
  for (const std::int32_t max_columns : {1, 2, 3, 40}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Request request = text_request({4, 5, 6}, max_columns, seed);
      const auto sink = std::make_shared<CollectingSink>();
      rig.executor.submit(request, sink);
      REQUIRE(sink->wait());
      expect_reference(*sink, request, rig.engine.spec());
    }
  }
  EXPECT_EQ(rig.executor.stats().finished, 20);
  rig.check_clean();
}

TEST("executor: every door error names its field, and the running request is not harmed") {
  Rig rig(roomy_spec(), config());
  const auto running = std::make_shared<CollectingSink>();
  const Request good = endless_request();
  rig.executor.submit(good, running);

  const auto refused = [&](const Request& request, const std::string& part) {
    expect_refused(rig.executor, request, part);
  };
  const auto with = [&](PromptSegment segment) {
    Request request = text_request({1}, 8);
    request.prompt.insert(request.prompt.begin(), std::move(segment));
    return request;
  };
  Request request;
  refused(request, "[submit] prompt: expected at least 1 segment, got 0");
  refused(text_request({}, 8), "prompt[0].ids: expected at least 1 text id, got 0");
  refused(text_request({1, 2, 100}, 8), "prompt[0].ids[2]: expected 0..99, got 100");
  refused(text_request({-1}, 8), "prompt[0].ids[0]: expected 0..99, got -1");

  PromptSegment audio{.kind = Kind::kAudio, .ids = {0, 1, 2, 15}, .rows = {}};
  request = text_request({1}, 8);
  request.prompt.push_back(audio);
  refused(request, "prompt[1].kind: expected the last segment to be text");
  audio.ids = {0, 1, 2, 16};
  refused(with(audio), "prompt[0].ids[3]: expected 0..15, got 16");
  audio.ids = {0, 1, 2};
  refused(with(audio), "a positive multiple of num_codebooks 4, got 3");
  audio.ids = {};
  refused(with(audio), "a positive multiple of num_codebooks 4, got 0");
  audio.ids = {0, 1, 2, 15};
  audio.model_axis = 8;
  refused(with(audio), "prompt[0].model_axis: expected num_codebooks 4 (or 0, unchecked), got 8");
  audio.model_axis = 0;
  audio.rows = {1.0f};
  refused(with(audio), "prompt[0].rows: expected none in a text or audio segment, got 1");

  PromptSegment table{.kind = Kind::kTable, .ids = {}, .rows = std::vector<float>(12, 1.0f)};
  table.rows[7] = std::numeric_limits<float>::quiet_NaN();
  refused(with(table), "prompt[0].rows[7]: expected a finite number");
  table.rows.resize(7, 0.0f);
  refused(with(table), "prompt[0].rows: expected a positive multiple of hidden_size 6, got 7");
  table.rows.clear();
  refused(with(table), "a positive multiple of hidden_size 6, got 0");
  table.rows.assign(6, 0.0f);
  table.model_axis = 3;
  refused(with(table), "prompt[0].model_axis: expected hidden_size 6");
  table.model_axis = 0;
  table.ids = {1};
  refused(with(table), "prompt[0].ids: expected none in a table segment, got 1");
  table.kind = static_cast<Kind>(7);
  table.rows.clear();
  refused(with(table), "prompt[0].kind: expected text (0), audio (1) or table (2), got 7");

  refused(text_request({1}, 0), "max_columns: expected 1..200 (max_sequence), got 0");
  refused(text_request({1}, 201), "max_columns: expected 1..200 (max_sequence), got 201");
  refused(text_request({1, 2}, 199), "prompt: expected at most 1 positions (max_sequence 200");
  request = text_request({1}, 8);
  request.sampling.top_p = 0;
  refused(request, "top_p");
  EXPECT_THROWS(rig.executor.submit(text_request({1}, 8), nullptr), "sink");

  EXPECT(rig.executor.stats().refused > 40);
  REQUIRE(running->wait());
  expect_reference(*running, good, rig.engine.spec());
  rig.check_clean();
}

TEST("executor: a request that can never fit the blocks is refused, one that just fits runs") {
  Rig rig(small_spec({.block_tokens = 4, .num_blocks = 5}), config());
  expect_refused(rig.executor, text_request({1, 2}, 20),
                 "prompt: expected to need at most 5 KV blocks of 4 positions, got 6");
  expect_refused(rig.executor, text_request(std::vector<std::int32_t>(20, 1), 1), "5 KV blocks");
  for (const Request& request :
       {text_request({1, 2}, 19), text_request(std::vector<std::int32_t>(19, 1), 1)}) {
    const auto sink = std::make_shared<CollectingSink>();
    rig.executor.submit(request, sink);
    REQUIRE(sink->wait());
    expect_reference(*sink, request, rig.engine.spec());
  }
  rig.check_clean();
}

TEST("executor: limits that do not fit the engine are refused") {
  const auto refused = [](const ExecutorConfig& bad, const char* part) {
    EXPECT_THROWS(Rig(roomy_spec(), bad), part);
  };
  refused({.max_batch = 9, .max_step_tokens = 16, .max_sequence = 99}, "max_batch: expected 1..8");
  refused({.max_batch = 4, .max_step_tokens = 4, .max_sequence = 99},
          "max_step_tokens: expected 5");
  refused({.max_batch = 4, .max_step_tokens = 65, .max_sequence = 99}, "5..64");
  refused({.max_batch = 4, .max_step_tokens = 16, .max_sequence = 513},
          "max_sequence: expected 2..512");
  refused({.max_batch = 4, .max_queue = 0, .max_step_tokens = 16, .max_sequence = 99}, "max_queue");
}

TEST("executor: a full queue refuses with its size and takes again later") {
  Rig rig(roomy_spec(), config(1, 3));
  Gate gate(rig.engine);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  const auto submit = [&] {
    sinks.push_back(std::make_shared<CollectingSink>());
    return rig.executor.submit(text_request({7, 8}, 12), sinks.back());
  };
  submit();
  gate.wait_reached();
  for (int i = 0; i < 3; ++i) submit();
  EXPECT_EQ(rig.executor.stats().waiting, 3);
  EXPECT_THROWS(submit(), "[submit] expected fewer than max_queue 3 waiting requests, got 3");
  EXPECT(code_of(submit) == ErrorCode::kResourceExhausted);
  EXPECT_EQ(rig.executor.stats().refused, 2);
  sinks.resize(4);
  gate.release();
  for (const auto& sink : sinks) REQUIRE(sink->wait());
  submit();
  REQUIRE(sinks.back()->wait());
  for (const auto& sink : sinks)
    expect_reference(*sink, text_request({7, 8}, 12), rig.engine.spec());
  rig.check_clean();
}

TEST("executor: cancelled while waiting, prefilling, running and paused") {
  Rig rig(roomy_spec(), config(2));
  Gate gate(rig.engine);
  const auto make = [] { return std::make_shared<CollectingSink>(); };
  const auto prefilling = make(), other = make(), waiting = make();
  Request long_prompt = text_request(std::vector<std::int32_t>(100, 3), 50);
  const std::uint64_t first = rig.executor.submit(long_prompt, prefilling);
  gate.wait_reached();
  const std::uint64_t second = rig.executor.submit(long_prompt, other);
  const std::uint64_t third = rig.executor.submit(long_prompt, waiting);
  for (const std::uint64_t id : {third, first, second, std::uint64_t{999}}) rig.executor.cancel(id);
  gate.release();
  for (const auto& sink : {prefilling, other, waiting}) {
    REQUIRE(sink->wait());
    EXPECT(sink->answer().reason == FinishReason::kCancelled);
    EXPECT_EQ(sink->misuse(), "");
  }
  EXPECT_EQ(prefilling->answer().columns.size(), 4u);  // the synthetic column only
  EXPECT_EQ(waiting->answer().columns.size(), 0u);

  const auto running = make(), paused = make();
  std::uint64_t id = 0;
  running->on_count = [&](std::int32_t count) {
    if (count == 5) rig.executor.cancel(id);
  };
  paused->pause_at = 3;
  {
    Gate hold(rig.engine);
    const std::uint64_t paused_id = rig.executor.submit(endless_request(), paused);
    hold.wait_reached();
    id = rig.executor.submit(endless_request(), running);
    hold.release();
    REQUIRE(running->wait());
    EXPECT_EQ(running->count(), 5);
    EXPECT(!paused->finished());
    EXPECT_EQ(paused->count(), 3);
    rig.executor.cancel(paused_id);
    REQUIRE(paused->wait());
  }
  EXPECT_EQ(rig.executor.stats().cancelled, 5);
  rig.executor.cancel(id);  // finished ids are ignored
  rig.check_clean();
}

TEST("executor: a paused request gives its blocks to others and goes on where it was") {
  Rig rig(small_spec({.block_tokens = 4, .num_blocks = 12}), config());
  const Request request = text_request(std::vector<std::int32_t>(20, 3), 25, 11);
  const auto paused = std::make_shared<CollectingSink>();
  paused->pause_at = 5;
  rig.executor.submit(request, paused);
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const Request other = text_request(std::vector<std::int32_t>(22, 4), 25, seed);
    const auto sink = std::make_shared<CollectingSink>();
    rig.executor.submit(other, sink);
    REQUIRE(sink->wait());
    expect_reference(*sink, other, rig.engine.spec());
  }
  EXPECT_EQ(paused->count(), 5);
  EXPECT(rig.executor.stats().preemptions >= 1);
  paused->set_paused(false);
  rig.executor.wake();
  REQUIRE(paused->wait());
  expect_reference(*paused, request, rig.engine.spec());
  rig.check_clean();
}

TEST("executor: an engine error ends the request that caused it and no other") {
  Rig rig(roomy_spec(), config());
  rig.engine.poison = 66;
  std::vector<std::pair<Request, std::shared_ptr<CollectingSink>>> all;
  Gate gate(rig.engine);
  for (std::uint64_t i = 0; i < 6; ++i) {
    const std::int32_t id = i == 1 || i == 4 ? 66 : 3;
    all.emplace_back(text_request({1, 2, id, 2}, 30, i), std::make_shared<CollectingSink>());
    rig.executor.submit(all.back().first, all.back().second);
  }
  gate.release();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& [request, sink] = all[i];
    REQUIRE(sink->wait());
    if (i == 1 || i == 4) {
      EXPECT(sink->answer().reason == FinishReason::kError);
      EXPECT_EQ(sink->answer().error, "[fake_engine] expected no text id 66");
    } else {
      expect_reference(*sink, request, rig.engine.spec());
    }
  }
  EXPECT_EQ(rig.executor.stats().failed, 2);
  rig.check_clean();
}

TEST("executor: a step that fails for unknown reasons fails its requests, and later ones run") {
  Rig rig(roomy_spec(), config());
  rig.engine.before_step = [&, armed = true](const StepBatch&) mutable {
    if (std::exchange(armed, false)) throw std::runtime_error("device lost");
  };
  const auto first = std::make_shared<CollectingSink>();
  const auto second = std::make_shared<CollectingSink>();
  rig.executor.submit(endless_request(), first);
  REQUIRE(first->wait());
  EXPECT_EQ(first->answer().error, "device lost");
  rig.executor.submit(text_request({1, 2}, 20), second);
  REQUIRE(second->wait());
  expect_reference(*second, text_request({1, 2}, 20), rig.engine.spec());
  rig.check_clean();
}

namespace {

// A sink that breaks its promise not to throw.
class ThrowingSink : public CollectingSink {
 public:
  void on_column(std::span<const std::int32_t> column, bool ended) override {
    CollectingSink::on_column(column, ended);
    if (count() == 4) throw std::runtime_error("sink is broken");
  }
};

// Breaks the step loop itself.
class LoopBreakingSink : public CollectingSink {
 public:
  bool paused() const override {
    if (count() == 3) throw std::runtime_error("no answer");
    return false;
  }
};

// Reports the third column of row 0 as failed.
class FailingSampler : public Sampler {
 public:
  explicit FailingSampler(std::unique_ptr<Sampler> inner) : inner_(std::move(inner)) {}
  void open_row(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history) override {
    inner_->open_row(row, params, history);
  }
  void advance(const float* logits, std::span<const std::int32_t> rows) override {
    inner_->advance(logits, rows);
  }
  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    inner_->fetch(columns, sampled);
    if (++fetches_ == 3) sampled[0].failed = sampled[0].finished = true;
  }
  const std::int32_t* last_columns() const override { return inner_->last_columns(); }

 private:
  std::unique_ptr<Sampler> inner_;
  int fetches_ = 0;
};

}  // namespace

TEST("executor: a throwing sink and logits without a maximum end their own request") {
  Rig rig(roomy_spec(), config());
  const auto broken = std::make_shared<ThrowingSink>();
  const auto good = std::make_shared<CollectingSink>();
  rig.executor.submit(endless_request(), broken);
  rig.executor.submit(endless_request(), good);
  REQUIRE(broken->wait() && good->wait());
  EXPECT_EQ(broken->answer().error, "[executor] on_column threw: sink is broken");
  expect_reference(*good, endless_request(), rig.engine.spec());
  rig.check_clean();

  const EngineSpec spec = roomy_spec();
  FakeEngine engine(spec);
  FailingSampler sampler(make_cpu_sampler({4, spec.num_codebooks, spec.codebook_vocab}));
  Executor executor(engine, sampler, config());
  const auto failed = std::make_shared<CollectingSink>();
  executor.submit(endless_request(), failed);
  REQUIRE(failed->wait());
  EXPECT_EQ(
      failed->answer().error,
      "[sampler] column 3: expected logits with a finite maximum, got NaN or nothing above -inf");
  EXPECT_EQ(failed->count(), 3);
}

TEST("executor: when the loop itself fails, everyone hears of it and nothing more is taken") {
  Rig rig(roomy_spec(), config(2));
  std::vector<std::shared_ptr<CollectingSink>> sinks = {std::make_shared<CollectingSink>(),
                                                        std::make_shared<LoopBreakingSink>(),
                                                        std::make_shared<CollectingSink>()};
  {
    Gate gate(rig.engine);
    for (const auto& sink : sinks) rig.executor.submit(endless_request(), sink);
  }
  const std::string message = "[executor] the step loop failed: no answer";
  for (const auto& sink : sinks) {
    REQUIRE(sink->wait());
    EXPECT_EQ(sink->answer().error, message);
    EXPECT_EQ(sink->misuse(), "");
  }
  EXPECT_THROWS(rig.executor.submit(text_request({1}, 8), sinks[0]), message);
  EXPECT_EQ(rig.executor.stats().failed, 3);
  rig.check_clean();
}

TEST("executor: cancel storms from several threads") {
  Rig rig(small_spec({.block_tokens = 3, .num_blocks = 60}), config(4, 1000));
  std::atomic<std::uint64_t> newest{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      while (!done) {
        const auto last = static_cast<std::int32_t>(newest.load());
        rig.executor.cancel(
            static_cast<std::uint64_t>(draw(random, std::max(0, last - 6), last + 2)));
        if (draw(random, 0, 7) == 0) rig.executor.wake();
        if (rig.executor.stats().submitted < 0) return;
        std::this_thread::sleep_for(std::chrono::microseconds(draw(random, 0, 100)));
      }
    });
  }
  Random random(99);
  std::vector<std::pair<Request, std::shared_ptr<CollectingSink>>> all;
  for (int i = 0; i < 200; ++i) {
    all.emplace_back(random_request(random, rig.engine.spec(), 40),
                     std::make_shared<CollectingSink>());
    newest = rig.executor.submit(all.back().first, all.back().second);
    std::this_thread::sleep_for(std::chrono::microseconds(draw(random, 0, 60)));
  }
  for (const auto& [request, sink] : all) {
    REQUIRE(sink->wait());
    expect_reference(*sink, request, rig.engine.spec(), true);
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT(rig.executor.stats().cancelled > 0);
  rig.check_clean();
}

TEST("executor: shutdown in the middle finishes everyone exactly once") {
  for (unsigned round = 0; round < 20; ++round) {
    Random random(round);
    Rig rig(small_spec({.block_tokens = 4, .num_blocks = 40}), config(3));
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (int i = 0; i < 8; ++i) {
      sinks.push_back(std::make_shared<CollectingSink>());
      if (i % 3 == 0) sinks.back()->pause_at = 2;
      rig.executor.submit(random_request(random, rig.engine.spec(), 60), sinks.back());
    }
    std::this_thread::sleep_for(std::chrono::microseconds(draw(random, 0, 500)));
    std::thread other([&] { rig.executor.shutdown(); });
    rig.executor.shutdown();
    for (const auto& sink : sinks) {
      EXPECT(sink->finished());
      EXPECT_EQ(sink->misuse(), "");
    }
    other.join();
    const auto late = std::make_shared<CollectingSink>();
    EXPECT(code_of([&] { rig.executor.submit(text_request({1}, 8), late); }) ==
           ErrorCode::kUnavailable);
    rig.check_clean();
  }
}

TEST("executor: stats count steps, columns, prompt rows and time") {
  Rig rig(roomy_spec(), config());
  const Request request = text_request(std::vector<std::int32_t>(40, 2), 10, 5);
  const auto sink = std::make_shared<CollectingSink>();
  rig.executor.submit(request, sink);
  REQUIRE(sink->wait());
  rig.executor.shutdown();
  const RuntimeStats stats = rig.executor.stats();
  const auto columns = static_cast<std::int64_t>(sink->answer().columns.size() / 4);
  EXPECT_EQ(stats.columns, columns);
  EXPECT_EQ(stats.prompt_rows, 40);
  EXPECT_EQ(stats.steps, 2 + columns - 1);  // 41 rows in chunks of 16, the third gives column 1
  EXPECT(stats.forward_seconds > 0 && stats.sample_seconds > 0);
  EXPECT(stats.step_seconds >= stats.forward_seconds + stats.sample_seconds);
  EXPECT_EQ(rig.engine.most_rows, 16);
}
