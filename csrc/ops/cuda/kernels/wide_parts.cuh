// Pieces of the wide product (sm_90a): clusters, copies of tiles, wgmma.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "ops/cuda/kernels/barrier.cuh"
#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/prompt_wgmma.cuh"
#include "ops/cuda/kernels/wgmma.cuh"

namespace higgs_rt::wide {

// --- Clusters -----------------------------------------------------------------------------------

// All threads of the cluster have come here. Only with `publish` do they see what the others wrote
// to shared memory: one thread's fence stands for its block, whose threads it has met before.
template <bool publish>
__device__ inline void cluster_meet() {
  if constexpr (publish) {
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("fence.acq_rel.cluster;" ::: "memory");
    __syncwarp();
  }
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// The same in two halves: every thread of the cluster arrives once and waits once. What was written
// before is not published (a fence of the cluster is one of the whole GPU: it waits for every copy
// that is under way); that a barrier was made is, by publish_barriers().
__device__ inline void arrive_cluster() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void wait_cluster() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same place in the shared memory of another block of the cluster.
__device__ inline std::uint32_t in_block(std::uint32_t address, unsigned rank) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// An arrival at a barrier of another block that publishes nothing.
__device__ inline void arrive_there(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier)
               : "memory");
}
// Writes to this block's shared memory (`here`), or to another block's and counts the bytes at a
// barrier there (`there`), or not at all.
__device__ inline void store_or_send(std::uint32_t to, std::uint32_t barrier, unsigned here,
                                     unsigned there, const Pack<float, 4>& value) {
  asm volatile(
      "{ .reg .pred h, t; setp.ne.u32 h, %6, 0; setp.ne.u32 t, %7, 0; "
      "@h st.shared.v4.f32 [%0], {%1, %2, %3, %4}; "
      "@t st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, "
      "%4}, [%5]; }" ::"r"(to),
      "f"(value.item[0]), "f"(value.item[1]), "f"(value.item[2]), "f"(value.item[3]), "r"(barrier),
      "r"(here), "r"(there)
      : "memory");
}
// wait_barrier() for what other blocks of the cluster sent.
__device__ inline void wait_barrier_of_cluster(std::uint32_t barrier, unsigned parity) {
  unsigned done = 0;
  while (done == 0) {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// --- Some warps of a block ----------------------------------------------------------------------

// Barriers of the hardware; 0 is __syncthreads().
enum Meeting { kMultiplied = 1, kEnded = 2 };
template <Meeting meeting, int kThreads>
__device__ inline void meet_warps() {
  __syncwarp();
  asm volatile("bar.sync %0, %1;" ::"n"(static_cast<int>(meeting)), "n"(kThreads) : "memory");
}
template <Meeting meeting, int kThreads>
__device__ inline void arrive_warps() {
  __syncwarp();
  asm volatile("bar.arrive %0, %1;" ::"n"(static_cast<int>(meeting)), "n"(kThreads) : "memory");
}

// --- Shared memory of this block ----------------------------------------------------------------

__device__ inline void store_here(std::uint32_t address, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}
__device__ inline Pack<float, 4> load_here(std::uint32_t address) {
  Pack<float, 4> v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.item[0]), "=f"(v.item[1]), "=f"(v.item[2]), "=f"(v.item[3])
               : "r"(address)
               : "memory");
  return v;
}

// --- Copies of boxes: rows of 64 numbers from (column, row) on, zero outside --------------------

using higgs_rt::once_policy;
__device__ inline std::uint64_t often_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// What a warp that is here as a whole does by one lane of it, within one piece of assembly: with a
// branch of one lane around it a copy becomes a loop over lanes, its operands brought over one by
// one (docs/performance.md, "What asking costs").
__device__ inline void expect_by_one(std::uint32_t barrier, unsigned bytes) {
  asm volatile(
      "{ .reg .pred p; elect.sync _|p, 0xffffffff; "
      "@p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1; }" ::"r"(barrier),
      "r"(bytes)
      : "memory");
}
__device__ inline void copy_by_one(std::uint32_t to, const CUtensorMap* map, int column, int row,
                                   std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "{ .reg .pred p; elect.sync _|p, 0xffffffff; "
      "@p cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
      "L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5; }" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// --- Products -----------------------------------------------------------------------------------

// A tile of rows of 128 bytes, swizzled by 128, from an address that is a multiple of 1,024: eight
// rows are 1,024 bytes. 16 numbers further on: + 2; 8 rows: + 64.
__device__ inline std::uint64_t tile_at(std::uint32_t address) {
  const std::uint64_t swizzle128 = 1, eight_rows = 1024 >> 4;
  return (address & 0x3FFFFu) >> 4 | std::uint64_t{1} << 16 | eight_rows << 32 | swizzle128 << 62;
}
using prompt::multiply;

// Registers that products under way write must not be read or moved before.
template <int kCount>
__device__ inline void settle(float (&sum)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

}  // namespace higgs_rt::wide
