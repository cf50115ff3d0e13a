// Read bandwidth of main memory.
#pragma once

#include "core/thread_pool.h"

namespace higgs_rt::bench {

// Bytes per second that the pool's threads read together from a buffer far larger than the caches;
// the best of several passes.
double measure_read_bandwidth(ThreadPool& pool);

}  // namespace higgs_rt::bench
