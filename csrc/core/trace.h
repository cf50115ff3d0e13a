// Named ranges of host time for a profiler (NVTX); nothing in a build without CUDA.
#pragma once

namespace higgs_rt {

class TraceRange {
 public:
  // `name` must stay.
  explicit TraceRange(const char* name);
  ~TraceRange();
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace higgs_rt
