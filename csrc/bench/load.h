// Requests sent to a runtime at once, and what was measured.
#pragma once

#include <cstdint>
#include <vector>

#include "higgs_rt/runtime.h"

namespace higgs_rt::bench {

struct Load {
  std::int32_t concurrency = 1;
  std::int32_t prompt_tokens = 64;
  std::int32_t frames = 100;  // generated at most
  bool waveform = true;
  bool endless = false;  // sample so that a model of write_random_lm does not end
};

struct Measured {
  std::int32_t concurrency = 0;
  double wall_seconds = 0;
  double audio_seconds = 0;            // of all requests
  std::vector<double> first_audio;     // seconds from submission, one per request
  std::vector<double> column_seconds;  // between columns of a request, all requests
  double step_seconds = 0;             // mean of the executor's steps
  std::int64_t steps = 0;
};

// Sends `load.concurrency` streaming requests and waits for all. With `waveform` it measures what a
// caller hears; without, every frame is a chunk of its own, which times the columns.
Measured run_load(Runtime& runtime, const Load& load);

// Value below which `share` of the values lie; 0 when there are none.
double quantile(std::vector<double> values, double share);

}  // namespace higgs_rt::bench
