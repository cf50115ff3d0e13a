// Barriers in shared memory that count arrivals and the bytes of copies, and the fences beside them
// (compute capability 9.0).
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/async_copy.cuh"

namespace higgs_rt {

using Barrier = std::uint64_t;  // in shared memory

// One by its address in shared memory. A phase ends with the last of `arrivals` when all bytes that
// it expects have come.
__device__ inline void init_barrier(std::uint32_t barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Other blocks and the copy engine see the barriers that this thread made.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// One arrival, which adds `bytes` to what the phase waits for.
__device__ inline void expect_bytes(std::uint32_t barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void arrive_barrier(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Until the phase of that parity has ended; the first one has parity 0.
__device__ inline void wait_barrier(std::uint32_t barrier, unsigned parity) {
  unsigned done = 0;
  while (done == 0) {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

__device__ inline void init_barrier(Barrier* barrier, unsigned arrivals) {
  init_barrier(shared_address(barrier), arrivals);
}
__device__ inline void expect_bytes(Barrier* barrier, unsigned bytes) {
  expect_bytes(shared_address(barrier), bytes);
}
__device__ inline void arrive_barrier(Barrier* barrier) { arrive_barrier(shared_address(barrier)); }
__device__ inline void wait_barrier(Barrier* barrier, unsigned parity) {
  wait_barrier(shared_address(barrier), parity);
}

// What this thread wrote to shared memory, and what its copies did, becomes visible to the copy
// engine and to wgmma in threads that meet it in a barrier afterwards.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace higgs_rt
