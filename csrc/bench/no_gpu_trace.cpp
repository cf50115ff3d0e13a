#include "bench/gpu_trace.h"
#include "core/check.h"

namespace higgs_rt::bench {
namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kUnsupported,
              "[--trace] expected a build for CUDA with CUPTI (cupti.h and libcupti of the CUDA "
              "toolkit, or CMake's CUPTI_ROOT), got one without");
}

}  // namespace

void start_gpu_trace(bool) { refuse(); }
std::uint64_t gpu_trace_now() { refuse(); }
void keep_gpu_trace() { refuse(); }
std::vector<TraceRecord> take_gpu_trace(std::uint64_t, std::uint64_t) { refuse(); }

}  // namespace higgs_rt::bench
