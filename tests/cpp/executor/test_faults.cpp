#include <stdexcept>
#include <utility>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

EACH_MODE("executor: an engine error ends the request that caused it and no other") {
  Rig rig(roomy_spec(), small_config(), mode);
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

EACH_MODE(
    "executor: a step that fails for unknown reasons fails its requests, and later ones run") {
  Rig rig(roomy_spec(), small_config(), mode);
  rig.engine.before_step = [&, armed = true](const StepBatch&) mutable {
    if (std::exchange(armed, false)) throw std::runtime_error("device lost");
  };
  const auto first = std::make_shared<CollectingSink>();
  const auto second = std::make_shared<CollectingSink>();
  rig.executor.submit(long_request(), first);
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
  void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) override {
    inner_->enqueue(logits, rows, count);
  }
  void deliver(std::span<const std::int32_t> rows) override { inner_->deliver(rows); }
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

EACH_MODE("executor: a throwing sink ends its own request") {
  Rig rig(roomy_spec(), small_config(), mode);
  const auto broken = std::make_shared<ThrowingSink>();
  const auto good = std::make_shared<CollectingSink>();
  rig.executor.submit(long_request(), broken);
  rig.executor.submit(long_request(), good);
  REQUIRE(broken->wait() && good->wait());
  EXPECT_EQ(broken->answer().error, "[executor] on_column threw: sink is broken");
  expect_reference(*good, long_request(), rig.engine.spec());
  rig.check_clean();
}

EACH_MODE("executor: logits without a maximum end their own request") {
  FakeEngine engine(in_mode(roomy_spec(), mode));
  FailingSampler sampler(make_rig_sampler(engine, 4, mode));
  Executor executor(engine, sampler, small_config());
  const auto failed = std::make_shared<CollectingSink>();
  executor.submit(long_request(), failed);
  REQUIRE(failed->wait());
  EXPECT_EQ(
      failed->answer().error,
      "[sampler] column 3: expected logits with a finite maximum, got NaN or nothing above -inf");
  EXPECT_EQ(failed->count(), 3);
}

namespace {

// Cannot bring the columns of the fourth step, or another one.
class LosingSampler : public FailingSampler {
 public:
  explicit LosingSampler(std::unique_ptr<Sampler> inner, int lost = 4)
      : FailingSampler(std::move(inner)), lost_(lost) {}
  void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) override {
    FailingSampler::fetch(columns, sampled);
    if (++count_ == lost_) throw std::runtime_error("device lost");
    if (count_ == 3) sampled[0].failed = sampled[0].finished = false;
  }

 private:
  const int lost_;
  int count_ = 0;
};

}  // namespace

// The second request starts with blocks of the first one's prompt before anybody knows that their
// step has failed.
EACH_MODE("executor: whoever has found blocks of a step that failed ends with it") {
  FakeEngine engine(in_mode(roomy_spec(), mode));
  LosingSampler sampler(make_rig_sampler(engine, 4, mode), 1);
  Executor executor(engine, sampler, small_config());
  const std::vector<Request> requests = {text_request({1, 2, 3, 4, 5, 6, 7, 8}, 2),
                                         text_request({1, 2, 3, 4, 5, 6, 7, 8, 9}, 20),
                                         text_request({4, 3, 2, 1, 9}, 20)};
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  Gate gate(engine);
  for (const Request& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    executor.submit(request, sinks.back());
    if (sinks.size() == 1) gate.wait_reached();
  }
  gate.release();
  for (const auto& sink : sinks) REQUIRE(sink->wait());
  EXPECT_EQ(sinks[0]->answer().error, "device lost");
  if (mode == Mode::kPlain) {
    expect_reference(*sinks[1], requests[1], engine.spec());
  } else {
    EXPECT_EQ(executor.stats().prefix_hits, 8);
    EXPECT_EQ(sinks[1]->answer().error, "device lost");
  }
  if (mode == Mode::kPipelined) {  // where all three have their first columns from one step
    EXPECT_EQ(sinks[2]->answer().error, "device lost");
  } else {
    expect_reference(*sinks[2], requests[2], engine.spec());
  }
  const auto later = std::make_shared<CollectingSink>();
  executor.submit(requests[1], later);
  REQUIRE(later->wait());
  expect_reference(*later, requests[1], engine.spec());
  executor.shutdown();
  EXPECT_EQ(executor.stats().free_blocks, executor.stats().total_blocks);
}

EACH_MODE("executor: columns that cannot be fetched end the requests of their step") {
  FakeEngine engine(in_mode(roomy_spec(), mode));
  LosingSampler sampler(make_rig_sampler(engine, 4, mode));
  Executor executor(engine, sampler, small_config());
  const auto failed = std::make_shared<CollectingSink>();
  executor.submit(long_request(), failed);
  REQUIRE(failed->wait());
  EXPECT_EQ(failed->answer().error, "device lost");
  EXPECT_EQ(failed->count(), 4);
  const auto later = std::make_shared<CollectingSink>();
  executor.submit(text_request({1, 2}, 20), later);
  REQUIRE(later->wait());
  expect_reference(*later, text_request({1, 2}, 20), engine.spec());
}

EACH_MODE("executor: when the loop itself fails, everyone hears of it and nothing more is taken") {
  Rig rig(roomy_spec(), small_config(2), mode);
  std::vector<std::shared_ptr<CollectingSink>> sinks = {std::make_shared<CollectingSink>(),
                                                        std::make_shared<LoopBreakingSink>(),
                                                        std::make_shared<CollectingSink>()};
  {
    Gate gate(rig.engine);
    for (const auto& sink : sinks) rig.executor.submit(long_request(), sink);
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
