#include <sstream>

#include "higgs_rt/runtime.h"
#include "ops/ops.h"

namespace higgs_rt {

const char* version() { return HIGGS_RT_VERSION; }

std::string build_info() {
  std::ostringstream out;
  out << "higgs_rt " << version() << ", " << HIGGS_RT_COMPILER << ", " << HIGGS_RT_BUILD_TYPE
      << ", backends: cpu" << HIGGS_RT_BACKENDS << ", kernels: " << cpu_isa();
  return out.str();
}

}  // namespace higgs_rt
