// Pieces of the wide product (sm_90a): clusters, copies of tiles, wgmma.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "ops/cuda/kernels/barrier.cuh"
#include "ops/cuda/kernels/numbers.cuh"
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
// Writes to the shared memory of another block and counts the bytes at a barrier there.
__device__ inline void send_there(std::uint32_t to, std::uint32_t barrier,
                                  const Pack<float, 4>& value) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(to),
      "f"(value.item[0]), "f"(value.item[1]), "f"(value.item[2]), "f"(value.item[3]), "r"(barrier)
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
__device__ inline void store_here(std::uint32_t address, const Pack<float, 4>& v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.item[0]),
               "f"(v.item[1]), "f"(v.item[2]), "f"(v.item[3])
               : "memory");
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
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap* map, int column, int row,
                                std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap* map, int column, int row,
                                Barrier* barrier, std::uint64_t policy) {
  copy_box(to, map, column, row, shared_address(barrier), policy);
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
#define HIGGS_8(i)                                                                      \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), \
      "+f"(sum[i + 5]), "+f"(sum[i + 6]), "+f"(sum[i + 7])

// sum [64, kRows] += weights [64, 16] rows [kRows, 16]^T, by four warps; not finished when it
// returns.
__device__ inline void multiply(float (&sum)[16], std::uint64_t weights, std::uint64_t rows) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, 1, 1, 1, 0, 0;\n"
      : HIGGS_8(0), HIGGS_8(8)
      : "l"(weights), "l"(rows));
}
__device__ inline void multiply(float (&sum)[32], std::uint64_t weights, std::uint64_t rows) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, 0, 0;\n"
      : HIGGS_8(0), HIGGS_8(8), HIGGS_8(16), HIGGS_8(24)
      : "l"(weights), "l"(rows));
}
__device__ inline void multiply(float (&sum)[64], std::uint64_t weights, std::uint64_t rows) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, 0, 0;\n"
      : HIGGS_8(0), HIGGS_8(8), HIGGS_8(16), HIGGS_8(24), HIGGS_8(32), HIGGS_8(40), HIGGS_8(48),
        HIGGS_8(56)
      : "l"(weights), "l"(rows));
}

#undef HIGGS_8

// Registers that products under way write must not be read or moved before.
template <int kCount>
__device__ inline void settle(float (&sum)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

}  // namespace higgs_rt::wide
