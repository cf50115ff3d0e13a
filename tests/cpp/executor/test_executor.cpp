#include <set>
#include <thread>

#include "check.h"
#include "executor/mailbox.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

EACH_MODE("executor: stop, length and the single synthetic column") {
  Rig rig(roomy_spec(), small_config(), mode);
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

TEST("executor: cancelled while waiting, prefilling, running and paused") {
  Rig rig(roomy_spec(), small_config(2));
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
    const std::uint64_t paused_id = rig.executor.submit(long_request(), paused);
    hold.wait_reached();
    id = rig.executor.submit(long_request(), running);
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

EACH_MODE("executor: a paused request gives its blocks to others and goes on where it was") {
  Rig rig(small_spec({.block_tokens = 4, .num_blocks = 12}), small_config(), mode);
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
  EXPECT_EQ(paused->count(), mode == Mode::kPlain ? 5 : 6);  // one was in flight
  EXPECT(rig.executor.stats().preemptions >= 1);
  paused->set_paused(false);
  rig.executor.wake();
  REQUIRE(paused->wait());
  expect_reference(*paused, request, rig.engine.spec());
  rig.check_clean();
}

TEST("executor: an id that is cancelled again and again is handled once") {
  Mailbox mailbox(1, 1);
  for (const std::uint64_t id : {7, 3, 7, 7, 3}) mailbox.cancel(id);
  EXPECT(mailbox.take_cancels() == (std::set<std::uint64_t>{3, 7}));
  EXPECT(mailbox.take_cancels().empty());
}

EACH_MODE("executor: cancel storms from several threads") {
  Rig rig(small_spec({.block_tokens = 3, .num_blocks = 60}), small_config(4, 1000), mode);
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

EACH_MODE("executor: shutdown in the middle finishes everyone exactly once") {
  for (unsigned round = 0; round < 20; ++round) {
    Random random(round);
    Rig rig(small_spec({.block_tokens = 4, .num_blocks = 40}), small_config(3), mode);
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
  Rig rig(roomy_spec(), small_config());
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
