#include "bench/trace_run.h"

#include <chrono>
#include <cstdio>
#include <future>
#include <thread>

#include "bench/gpu_trace.h"
#include "bench/trace_report.h"
#include "core/check.h"

namespace higgs_rt::bench {
namespace {

constexpr std::int64_t kFewestSteps = 10;
constexpr std::uint64_t kAround = 50'000'000;  // nanoseconds

// The runtime's counters once it has made `columns`; earlier when the run has ended.
RuntimeStats wait_for(const Runtime& runtime, std::int64_t columns,
                      const std::future<Measured>& running) {
  RuntimeStats stats = runtime.stats();
  while (stats.columns < columns &&
         running.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
    stats = runtime.stats();
  }
  return stats;
}

TraceWindow record(Runtime& runtime, const Load& load) {
  TraceWindow window;
  window.streams = load.concurrency;
  const std::int64_t done = runtime.stats().columns;
  const std::int64_t all = std::int64_t{load.concurrency} * load.frames;
  keep_gpu_trace();
  std::future<Measured> running =
      std::async(std::launch::async, [&] { return run_load(runtime, load); });
  const RuntimeStats before = wait_for(runtime, done + all / 4, running);
  window.begin = gpu_trace_now();
  const RuntimeStats after = wait_for(runtime, done + all * 3 / 4, running);
  window.end = gpu_trace_now();
  running.get();
  window.steps = after.steps - before.steps;
  window.graph_steps = after.graph_steps - before.graph_steps;
  window.device_seconds = after.device_seconds - before.device_seconds;
  window.records = take_gpu_trace(window.begin - kAround, window.end + kAround);
  return window;
}

}  // namespace

void run_traces(Runtime& runtime, const Options& options, Load load) {
  load.frames = options.most_frames();
  load.waveform = options.codec;
  load.arrival_rate = 0;
  load.vary_frames = false;
  std::vector<TraceWindow> windows;
  for (const std::int32_t streams : options.concurrency) {
    load.concurrency = load.requests = streams;
    const TraceWindow& window = windows.emplace_back(record(runtime, load));
    check(window.steps >= kFewestSteps, "--trace", "expected at least ", kFewestSteps,
          " steps in the middle of the run, got ", window.steps, ": ask for more --frames");
    print_trace(window);
  }
  write_trace(options.trace, windows);
}

}  // namespace higgs_rt::bench
