// Requests sent to a runtime, and what was measured.
#pragma once

#include <cstdint>
#include <vector>

#include "higgs_rt/runtime.h"

namespace higgs_rt::bench {

struct Load {
  std::int32_t concurrency = 1;  // closed: clients; open: not used
  std::int32_t requests = 1;     // in all
  // 0: closed, every client sends its next request when its last one has ended. Otherwise open:
  // requests a second, with exponential gaps.
  double arrival_rate = 0;
  std::int32_t prompt_tokens = 64;
  std::int32_t frames = 100;  // generated at most
  // With more clients than one, lengths vary by a quarter around `frames`, so that requests do not
  // start and end in step.
  bool vary_frames = true;
  bool waveform = true;
  bool endless = false;  // sample so that a model of write_random_lm does not end
};

struct Measured {
  std::int32_t concurrency = 0;
  std::int32_t requests = 0;
  std::int32_t frames = 0;  // of a request, about
  bool poisson = false;     // arrivals; otherwise `concurrency` clients
  double wall_seconds = 0;
  double audio_seconds = 0;  // of all requests
  // Seconds of audio a second while all clients are busy (BusyStretch of arrivals.h), and how long
  // that is; open: in the middle half of the time. 0: there is no such time.
  double steady_rate = 0;
  double steady_seconds = 0;
  std::vector<double> first_audio;     // seconds from submission, by request, in order of sending
  std::vector<double> column_seconds;  // between columns of a request, all requests
  std::int64_t underruns =
      0;                    // chunks that came after what the listener had was played, all streams
  double step_seconds = 0;  // mean of the executor's steps
  std::int64_t steps = 0;
  std::int64_t graph_steps = 0;  // of them, launched as one graph
  std::int64_t graph_rows = 0;   // columns that those computed
  double device_seconds = 0;     // the device's work on steps; 0 where it is not measured
  double graph_seconds = 0;      // of it, on those launched as one graph
};

// Sends streaming requests and waits for all. With `waveform` it measures what a caller hears;
// without, every frame is a chunk of its own, which times the columns. A listener starts to play
// when the first chunk comes. Throws the first error of a request.
Measured run_load(Runtime& runtime, const Load& load);

// Value below which `share` of the values lie; 0 when there are none.
double quantile(std::vector<double> values, double share);

}  // namespace higgs_rt::bench
