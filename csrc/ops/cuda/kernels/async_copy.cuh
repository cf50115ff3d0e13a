// Copies to shared memory that go on meanwhile (cp.async).
#pragma once

#include <cstdint>

namespace higgs_rt {

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// How the L2 cache keeps what is read with this: not for long.
__device__ inline std::uint64_t once_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Starts copying 16 bytes to shared memory, or zeros where `valid` is false.
__device__ inline void copy_async(std::uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
// The same for what is read once: the L2 cache gives it up first.
__device__ inline void copy_async_once(std::uint32_t to, const void* from, bool valid,
                                       std::uint64_t once) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to),
               "l"(from), "r"(bytes), "l"(once));
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;"); }
// Waits until at most `Pending` of this thread's latest groups are under way.
template <int Pending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace higgs_rt
