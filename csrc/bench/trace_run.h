// Traces of steady decoding (--trace).
#pragma once

#include "bench/bench_options.h"
#include "bench/load.h"

namespace higgs_rt::bench {

// Decodes `load` once with each of the options' numbers of streams, all requests of equal length
// and at the same time; records while they have between a quarter and three quarters of their
// columns, prints what that shows and writes the records. Throws kInvalidArgument when a run is too
// short.
void run_traces(Runtime& runtime, const Options& options, Load load);

}  // namespace higgs_rt::bench
