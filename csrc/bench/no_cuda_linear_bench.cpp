#include "bench/cuda_linear_bench.h"
#include "core/check.h"

namespace higgs_rt::bench {

void bench_cuda_linear(const Report&) {
  fail(ErrorCode::kUnsupported, "bench",
       "expected a build with CUDA (-DHIGGS_RT_CUDA=ON), got one "
       "without");
}

void bench_cuda_step(const Report&) {}  // bench_cuda_linear() has thrown
void bench_cublas_ranks(const Report&) {}

}  // namespace higgs_rt::bench
