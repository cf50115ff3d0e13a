// Run-time choice of the kernel table.
#include <cstdlib>
#include <cstring>

#include "core/check.h"
#include "ops/cpu/kernels.h"

namespace higgs_rt {

namespace {

struct Candidate {
  const char* name;
  bool available;
  const Kernels& (*table)();
};

const Candidate* candidates() {
#if defined(HIGGS_RT_X86_KERNELS)
  // Best first. The flags are those of isa_avx512.cpp and isa_avx2.cpp.
  static const Candidate all[] = {
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma"),
       avx512::kernels},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::kernels},
      {"generic", true, generic::kernels},
      {"reference", true, reference::kernels},
      {nullptr, false, nullptr}};
#else
  static const Candidate all[] = {{"avx512", false, nullptr},
                                  {"avx2", false, nullptr},
                                  {"generic", true, generic::kernels},
                                  {"reference", true, reference::kernels},
                                  {nullptr, false, nullptr}};
#endif
  return all;
}

}  // namespace

const Kernels& select_kernels() {
  const char* wanted = std::getenv("HIGGS_RT_CPU_ISA");
  if (wanted != nullptr && *wanted == '\0') wanted = nullptr;
  for (const Candidate* c = candidates(); c->name != nullptr; ++c) {
    if (wanted != nullptr && std::strcmp(wanted, c->name) != 0) continue;
    if (c->available) return c->table();
    if (wanted != nullptr) {
      fail(ErrorCode::kUnsupported, "ops", "HIGGS_RT_CPU_ISA=", wanted,
           " is not available on this machine or in this build");
    }
  }
  fail(ErrorCode::kInvalidArgument, "ops",
       "HIGGS_RT_CPU_ISA: expected generic, avx2, avx512 or reference, got ", wanted);
}

}  // namespace higgs_rt
