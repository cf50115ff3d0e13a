#include <array>
#include <chrono>
#include <thread>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

void pause_briefly(Random& random) {
  const std::int32_t kind = draw(random, 0, 3);
  if (kind == 1) std::this_thread::yield();
  if (kind >= 2) std::this_thread::sleep_for(std::chrono::microseconds(draw(random, 1, 300)));
}

// Often puts the prompt of `voice` before that of the request, or in its place.
void share_prefix(Random& random, const Request& voice, Request& request) {
  const std::int32_t kind = draw(random, 0, 3);
  if (kind == 0) return;
  if (kind == 1) request.prompt.clear();
  request.prompt.insert(request.prompt.begin(), voice.prompt.begin(), voice.prompt.end());
}

// Load, limits and moments from one seed; the interleaving with the step thread differs each time.
class Schedule {
 public:
  Schedule(unsigned seed, Mode mode) : random_(seed) {
    const std::int32_t count = draw(random_, 2, 9);
    EngineSpec spec = small_spec({.block_tokens = draw(random_, 1, 6), .num_blocks = 0});
    std::int32_t most = 0;  // blocks of the largest request
    const auto voices =
        std::array{random_request(random_, spec, 2), random_request(random_, spec, 2)};
    for (std::int32_t i = 0; i < count; ++i) {
      Client client;
      client.request = random_request(random_, spec, 45);
      share_prefix(random_, voices[draw(random_, 0, 1)], client.request);
      most = std::max(most, spec.kv.blocks_for(prompt_positions(client.request, spec) +
                                               std::max(client.request.max_columns - 1, 1)));
      if (draw(random_, 0, 3) == 0) client.cancel_at = draw(random_, 0, 30);
      if (draw(random_, 0, 3) == 0) client.sink->pause_at = draw(random_, 1, 20);
      clients_.push_back(std::move(client));
    }
    spec.kv.num_blocks = most + draw(random_, 0, 1) * draw(random_, 0, most);
    ExecutorConfig config;
    config.max_batch = draw(random_, 1, 5);
    config.max_step_tokens = config.max_batch + draw(random_, 1, 20);
    config.max_held_steps = draw(random_, 0, 4);
    config.max_sequence = spec.max_positions;
    config.prefix_cache = std::array{0.0, 0.3, 1.0, 1.0}[draw(random_, 0, 3)];
    rig_ = std::make_unique<Rig>(spec, config, mode);
    // Steps that take a little time let arrivals, cancellations and pauses fall among them.
    const std::int32_t step_time = draw(random_, 0, 40);
    rig_->engine.before_step = [step_time](const StepBatch&) {
      std::this_thread::sleep_for(std::chrono::microseconds(step_time));
    };
  }

  RuntimeStats run() {
    std::promise<void> all_wait;
    const std::shared_future<void> gate = all_wait.get_future().share();
    for (Client& client : clients_) {
      if (together_) client.start_behind(gate, rig_->executor);
      client.id = rig_->executor.submit(client.request, client.sink);
      if (spread_) pause_briefly(random_);
      serve();
    }
    all_wait.set_value();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!serve() && std::chrono::steady_clock::now() < deadline) pause_briefly(random_);
    for (const Client& client : clients_) {
      REQUIRE(client.sink->finished());
      expect_reference(*client.sink, client.request, rig_->engine.spec(), client.cancel_at >= 0);
    }
    const RuntimeStats stats = rig_->executor.stats();
    EXPECT_EQ(stats.submitted, static_cast<std::int64_t>(clients_.size()));
    EXPECT_EQ(stats.free_blocks, stats.total_blocks);
    EXPECT_EQ(stats.running + stats.waiting, 0);
    rig_->check_clean();
    return stats;
  }

 private:
  // Cancels what is due and lets paused readers read on. True when all have finished.
  bool serve() {
    bool all = true;
    for (Client& client : clients_) {
      if (client.id == 0 || client.sink->finished()) continue;
      all = false;
      if (client.cancel_at >= 0 && client.sink->count() >= client.cancel_at) {
        rig_->executor.cancel(client.id);
      }
      if (client.sink->paused() && draw(random_, 0, 3) == 0) {
        client.sink->set_paused(false);
        rig_->executor.wake();
      }
    }
    return all;
  }

  Random random_;
  bool spread_ = draw(random_, 0, 2) == 0;  // arrivals over time
  bool together_ = !spread_ && draw(random_, 0, 1) == 0;
  std::vector<Client> clients_;
  std::unique_ptr<Rig> rig_;
};

}  // namespace

namespace {

void run_schedules(unsigned count, Mode mode) {
  RuntimeStats sum;
  for (unsigned seed = 0; seed < count; ++seed) {
    const int before = failures();
    const RuntimeStats stats = Schedule(seed, mode).run();
    if (failures() != before) report(__FILE__, __LINE__, "schedule " + std::to_string(seed));
    sum.preemptions += stats.preemptions;
    sum.cancelled += stats.cancelled;
    sum.finished += stats.finished;
    sum.columns += stats.columns;
    sum.prefix_positions += stats.prefix_positions;
    sum.prefix_hits += stats.prefix_hits;
    sum.prefix_evictions += stats.prefix_evictions;
  }
  std::cout << sum.finished << " finished, " << sum.cancelled << " cancelled, " << sum.preemptions
            << " preemptions, " << sum.columns << " columns, " << sum.prefix_hits << " of "
            << sum.prefix_positions << " prompt positions shared, " << sum.prefix_evictions
            << " evictions\n";
  EXPECT(sum.preemptions > count / 3);  // else the schedules test too little
  EXPECT(sum.cancelled > count / 6);
  EXPECT(sum.prefix_hits > sum.prefix_positions / 10);
  EXPECT(sum.prefix_evictions > count);
  EXPECT(sum.finished > count * 10 / 3);
}

}  // namespace

TEST("executor: 300 random schedules give each request the columns it gets alone") {
  run_schedules(300, Mode::kPlain);
}

TEST("executor: 300 random schedules with a step in flight do so too") {
  run_schedules(300, Mode::kPipelined);
}

TEST("executor: 100 random schedules on an engine that does not run the tail do so too") {
  run_schedules(100, Mode::kPipelinedNoTail);
}
