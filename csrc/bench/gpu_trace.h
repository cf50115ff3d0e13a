// What the CUDA runtime and the GPU did, record by record (CUPTI).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace higgs_rt::bench {

struct TraceRecord {
  enum class Kind : std::uint8_t { kKernel, kCopy, kGraph, kCall };
  Kind kind;
  std::string_view name;  // stays; of kernels mangled
  std::uint64_t begin;    // nanoseconds of one clock, calls and GPU alike
  std::uint64_t end;
  std::uint32_t place;        // a call's thread, or the stream
  std::uint32_t correlation;  // what a call made the GPU do has the call's number
};

// Records from now on; to be called before the first CUDA call of the process, because kernels of a
// graph are recorded only when it was made after this. `whole_graphs`: a graph is one record, which
// costs nearly nothing, instead of one for each kernel. Throws kUnsupported in a build without
// CUPTI and kInternal with CUPTI's own code where it refuses.
void start_gpu_trace(bool whole_graphs);

// The clock of the records.
std::uint64_t gpu_trace_now();

// Records end up in memory only between these two. The second waits for what is outstanding, and
// returns what was at work in [begin, end).
void keep_gpu_trace();
std::vector<TraceRecord> take_gpu_trace(std::uint64_t begin, std::uint64_t end);

}  // namespace higgs_rt::bench
