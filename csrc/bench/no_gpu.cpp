// Answers for the GPU in a build without CUDA.
#include "bench/gpu.h"
#include "core/check.h"

namespace higgs_rt::bench {

double measure_copy_bandwidth(int ordinal) {
  fail(ErrorCode::kUnsupported, "higgs_bench", "expected a build with CUDA for cuda:", ordinal,
       ", got one without");
}

std::int64_t gpu_memory_used(int) { return 0; }
std::int64_t own_gpu_memory(int) { return -1; }

}  // namespace higgs_rt::bench
