// Linked in place of openblas.cpp when the build found no OpenBLAS: the columns stay empty.
#include "bench/openblas.h"
#include "core/check.h"

namespace higgs_rt::bench {

bool have_openblas() { return false; }

void set_openblas_threads(int) {}

void openblas_sgemm(bool, std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t,
                    const float*, std::int64_t, float, float*, std::int64_t) {
  fail(ErrorCode::kUnsupported, "bench", "this build has no OpenBLAS (set OpenBLAS_DIR)");
}

}  // namespace higgs_rt::bench
