// Linked in place of core/cuda when the build has no CUDA.
#include "core/check.h"
#include "core/device.h"
#include "core/trace.h"

namespace higgs_rt {

std::unique_ptr<Device> make_cuda_device(int ordinal, Priority) {
  fail(ErrorCode::kUnsupported, "device", "cuda:", ordinal,
       " was asked for, but this build has no CUDA (configure with -DHIGGS_RT_CUDA=ON)");
}

TraceRange::TraceRange(const char*) {}
TraceRange::~TraceRange() {}  // NOLINT(modernize-use-equals-default): the CUDA build has another

}  // namespace higgs_rt
