// What a trace of steady decoding shows, and the trace as a file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/gpu_trace.h"

namespace higgs_rt::bench {

struct TraceWindow {
  std::int32_t streams = 0;
  std::uint64_t begin = 0, end = 0;  // of gpu_trace_now()
  std::int64_t steps = 0;            // by the runtime's counters, in the window
  std::int64_t graph_steps = 0;
  double device_seconds = 0;  // likewise: estimated from timing events around some of the steps
  // In order of their begin; those of some milliseconds around the window too, so that a graph's
  // launch and work are both there. What is counted begins in the window.
  std::vector<TraceRecord> records;

  bool has(const TraceRecord& one) const { return one.begin >= begin && one.begin < end; }
  double seconds() const { return 1e-9 * static_cast<double>(end - begin); }
};

struct TraceSummary {
  std::uint32_t step_thread = 0;  // the thread that launched the most graphs
  double busy = 0;                // share of the window in which the GPU worked on anything
  double timed_busy = 0;          // the like by the window's device_seconds
  double longest_idle = 0;        // microseconds, between two pieces of work in the window
  double launches = 0;            // of graphs by the step thread, a step
  std::vector<double> gaps;  // microseconds from the end of a step's graph to the next one's begin
  // Calls of the step thread that wait for the GPU, and those at whose return the GPU still had a
  // graph to run that had been launched before the wait: it was not kept waiting.
  std::int64_t waits = 0, waits_ahead = 0;
};

// Throws kInvalidArgument for a trace without cudaGraphLaunch.
TraceSummary summarise(const TraceWindow& window);

// Calls a step, waits, how busy the GPU was, kernels by their share. The step thread is the one
// that launches the most graphs.
void print_trace(const TraceWindow& window);

// All windows as one Chrome trace (chrome://tracing, Perfetto). Throws kInvalidArgument where
// `path` cannot be written.
void write_trace(const std::string& path, const std::vector<TraceWindow>& windows);

}  // namespace higgs_rt::bench
