#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "check.h"
#include "core/thread_pool.h"

using higgs_rt::ThreadPool;

TEST("parallel_for covers every index once, in ranges of whole grains") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const std::int64_t grain : {1, 3, 16, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
        std::atomic<bool> whole{true};
        pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
          if (begin % grain != 0 || (end % grain != 0 && end != count)) whole = false;
          for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        });
        EXPECT(whole.load());
        for (const auto& times : seen) EXPECT_EQ(times.load(), 1);
      }
    }
  }
}

TEST("parallel_for uses more than one thread") {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::atomic<int> met{0};
  // Each range waits for the other one to start, which one thread alone could not bring about.
  pool.parallel_for(2, 1, [&](std::int64_t, std::int64_t) {
    ++inside;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (inside < 2 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    if (inside == 2) ++met;
  });
  EXPECT_EQ(met.load(), 2);
}

TEST("workers that fell asleep wake for the next job") {
  ThreadPool pool(3);
  std::atomic<std::int64_t> total{0};
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool.parallel_for(100, 1, [&](std::int64_t begin, std::int64_t end) { total += end - begin; });
  }
  EXPECT_EQ(total.load(), 2000);
}

TEST("several threads may call at once, more of them than the pool has") {
  ThreadPool pool(2);
  std::vector<std::thread> callers;
  std::vector<std::int64_t> sums(4, 0);
  for (std::size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 300; ++round) {
        std::vector<std::int64_t> values(37);  // plain memory: a race here would be reported
        pool.parallel_for(37, 2, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) values[static_cast<std::size_t>(i)] = i;
        });
        sums[caller] += std::accumulate(values.begin(), values.end(), std::int64_t{0});
      }
    });
  }
  for (std::thread& thread : callers) thread.join();
  for (const std::int64_t sum : sums) EXPECT_EQ(sum, 300 * 37 * 36 / 2);
}

TEST("a thread that has entered keeps its CPU between its calls") {
  ThreadPool pool(2);
  const auto ranges = [&](bool entered) {
    std::atomic<int> count = 0;
    pool.parallel_for(64, 1, [&](std::int64_t, std::int64_t) { ++count; }, entered);
    return count.load();
  };
  EXPECT(ranges(false) > 1);
  pool.enter();
  EXPECT(ranges(true) > 1);     // its own call
  EXPECT_EQ(ranges(false), 1);  // another's, which works alone
  pool.enter();
  EXPECT_EQ(ranges(true), 1);  // both are in the middle of their work
  pool.leave();
  pool.leave();
  EXPECT(ranges(false) > 1);
}

TEST("pools start and end without work, and refuse senseless sizes") {
  for (int i = 0; i < 50; ++i) ThreadPool pool(3);
  EXPECT(ThreadPool(0).size() >= 1);
  EXPECT_THROWS(ThreadPool(-1), "[thread_pool] expected num_threads in 0..1024, got -1");
  ThreadPool pool(1);
  EXPECT_THROWS(pool.parallel_for(3, 0, [](std::int64_t, std::int64_t) {}), "got 3 and 0");
}
