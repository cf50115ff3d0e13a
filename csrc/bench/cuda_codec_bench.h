// How fast the codec decoder is on the GPU.
#pragma once

#include "bench/report.h"

namespace higgs_rt::bench {

// The released shape with random weights, half precision: batches of windows, and the latency of a
// first chunk. Prints a table of the groups "codec <windows>x<frames>" that the report wants.
// Throws Error without a GPU.
void bench_cuda_codec(const Report& report);

}  // namespace higgs_rt::bench
