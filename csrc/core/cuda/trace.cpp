#include "core/trace.h"

#include <nvtx3/nvToolsExt.h>

namespace higgs_rt {

TraceRange::TraceRange(const char* name) { nvtxRangePushA(name); }
TraceRange::~TraceRange() { nvtxRangePop(); }

}  // namespace higgs_rt
