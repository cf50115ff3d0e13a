#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.h"

namespace higgs_rt {

namespace {

using Body = std::function<void(std::int64_t, std::int64_t)>;

constexpr std::int32_t kMaxThreads = 1024;
// A decode step is some tens of short operations a few microseconds apart: workers stay awake that
// long before they sleep.
constexpr auto kSpin = std::chrono::microseconds(40);
constexpr int kSpinsPerClockRead = 16;
// Ranges per thread: enough that a thread which loses its CPU for a while does not hold up the
// rest.
constexpr std::int64_t kRangesPerThread = 4;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::int32_t usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<std::int32_t>(std::thread::hardware_concurrency()));
}

// The gate packs what a worker must see at once: job number, whether the job still takes workers,
// and how many workers are inside it.
constexpr std::uint64_t kInsideMask = 0xffff;
constexpr std::uint64_t kOpen = std::uint64_t{1} << 16;
constexpr int kJobShift = 32;
std::uint64_t job_of(std::uint64_t gate) { return gate >> kJobShift; }

class CallerCount {
 public:
  CallerCount(std::atomic<std::int32_t>& count, bool entered)
      : count_(count), more_(entered ? 0 : 1), now_(count.fetch_add(more_) + more_) {}
  ~CallerCount() { count_ -= more_; }
  CallerCount(const CallerCount&) = delete;
  CallerCount& operator=(const CallerCount&) = delete;
  std::int32_t now() const { return now_; }  // callers when this one came, itself included

 private:
  std::atomic<std::int32_t>& count_;
  const std::int32_t more_;  // a thread that has entered is counted already
  const std::int32_t now_;
};

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(std::int32_t size) : num_threads(size) {
    for (std::int32_t i = 1; i < size; ++i) workers.emplace_back([this] { work(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(sleep_mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  // Callers share the CPUs: with as many callers as threads each works alone, and so does one that
  // finds the workers taken. Waiting would add another's operation to every operation of a step.
  void run(std::int64_t total, std::int64_t grain, const Body& work_body, bool entered) {
    const CallerCount callers(num_callers, entered);
    std::unique_lock lock(turn, std::defer_lock);
    if (callers.now() < num_threads && lock.try_lock()) {
      run_together(total, grain, work_body);
    } else {
      work_body(0, total);
    }
  }

  void run_together(std::int64_t total, std::int64_t grain, const Body& work_body) {
    const std::int64_t wanted = num_threads * kRangesPerThread;
    body = &work_body;
    count = total;
    step = (total + grain * wanted - 1) / (grain * wanted) * grain;
    next.store(0, std::memory_order_relaxed);
    const std::uint64_t job = job_of(gate.load(std::memory_order_relaxed)) + 1;
    gate.store((job << kJobShift) | kOpen);
    if (num_sleeping.load() > 0) {
      // The empty critical section orders this job before the sleeper's own test of the gate.
      {
        const std::lock_guard sleep_lock(sleep_mutex);
      }
      wake.notify_all();
    }
    take_ranges();
    // Workers that have not come by now are not waited for.
    gate.fetch_and(~kOpen);
    for (int spins = 0; (gate.load(std::memory_order_acquire) & kInsideMask) != 0; ++spins) {
      if (spins < 4096) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  void take_ranges() {
    for (;;) {
      const std::int64_t begin = next.fetch_add(step, std::memory_order_relaxed);
      if (begin >= count) return;
      (*body)(begin, std::min(count, begin + step));
    }
  }

  bool is_new(std::uint64_t seen, std::uint64_t done) const {
    return (seen & kOpen) != 0 && job_of(seen) != done;
  }

  void work() {
    std::uint64_t done = 0;
    while (wait_for_job(done)) {
      std::uint64_t seen = gate.load();
      if (!is_new(seen, done)) continue;
      if (!gate.compare_exchange_weak(seen, seen + 1)) continue;
      take_ranges();
      gate.fetch_sub(1, std::memory_order_release);
      done = job_of(seen);
    }
  }

  // False when the pool ends.
  bool wait_for_job(std::uint64_t done) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < kSpinsPerClockRead; ++i) {
        if (is_new(gate.load(std::memory_order_relaxed), done)) return true;
        relax();
      }
    } while (std::chrono::steady_clock::now() < until);
    std::unique_lock lock(sleep_mutex);
    num_sleeping.fetch_add(1);
    wake.wait(lock, [&] { return stop || is_new(gate.load(), done); });
    num_sleeping.fetch_sub(1);
    return !stop;
  }

  const std::int32_t num_threads;
  std::vector<std::thread> workers;
  std::mutex turn;  // held by the thread whose job the workers run
  std::atomic<std::int32_t> num_callers{0};

  // The job; written while the gate is closed and nobody is inside.
  const Body* body = nullptr;
  std::int64_t count = 0;
  std::int64_t step = 1;
  alignas(64) std::atomic<std::int64_t> next{0};
  alignas(64) std::atomic<std::uint64_t> gate{0};

  alignas(64) std::atomic<std::int32_t> num_sleeping{0};
  std::mutex sleep_mutex;
  std::condition_variable wake;
  bool stop = false;  // under sleep_mutex
};

ThreadPool::ThreadPool(std::int32_t num_threads) {
  check(num_threads >= 0 && num_threads <= kMaxThreads, "thread_pool",
        "expected num_threads in 0..", kMaxThreads, ", got ", num_threads);
  impl_ = std::make_unique<Impl>(num_threads == 0 ? usable_cpus() : num_threads);
}

ThreadPool::~ThreadPool() = default;

std::int32_t ThreadPool::size() const { return impl_->num_threads; }

void ThreadPool::enter() { ++impl_->num_callers; }

void ThreadPool::leave() { --impl_->num_callers; }

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain, const Body& body,
                              bool entered) {
  check_internal(count >= 0 && grain >= 1, "thread_pool",
                 "expected count >= 0 and grain >= 1, got ", count, " and ", grain);
  if (count == 0) return;
  if (impl_->num_threads == 1 || count <= grain) {
    body(0, count);
  } else {
    impl_->run(count, grain, body, entered);
  }
}

}  // namespace higgs_rt
