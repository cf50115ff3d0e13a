// Pieces of the weight-streaming product: copies, shared memory, clusters.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/barrier.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt::stream {

using bf16 = __nv_bfloat16;

// For what is read once: the L2 cache gives it up first.
__device__ inline std::uint64_t read_once_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// 16 bytes, past the L1 cache; both addresses multiples of 16.
__device__ inline void copy_async(std::uint32_t to, const void* from, std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
               "l"(from), "l"(policy)
               : "memory");
}
__device__ inline uint4 load_shared(std::uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}

__device__ inline void store_shared(std::uint32_t address, const uint4& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// --- Clusters; before compute capability 9.0 every cluster is one block. ------------------------

__device__ inline unsigned cluster_rank() {
#if __CUDA_ARCH__ >= 900
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return 0;
#endif
}

__device__ inline unsigned cluster_size() {
#if __CUDA_ARCH__ >= 900
  unsigned size;
  asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
  return size;
#else
  return 1;
#endif
}

// All blocks of the cluster have started and see each other's arrivals of init_arrival().
__device__ inline void cluster_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait;" ::: "memory");
#endif
}

// An Arrival counts the bytes that blocks of the cluster send to this block: expected once per
// phase by one thread, waited for by all. Sending needs no fence, which would wait for the copies
// of weights that are under way.
using Arrival = Barrier;

__device__ inline void init_arrival(Arrival* arrival) {
#if __CUDA_ARCH__ >= 900
  init_barrier(shared_address(arrival), 1);
  publish_barriers();
#endif
}

__device__ inline void expect_arrival(Arrival* arrival, int bytes) {
#if __CUDA_ARCH__ >= 900
  expect_bytes(shared_address(arrival), static_cast<unsigned>(bytes));
#endif
}

__device__ inline void wait_arrival(Arrival* arrival, unsigned phase) {
#if __CUDA_ARCH__ >= 900
  wait_barrier(shared_address(arrival), phase % 2);
#endif
}
// In every thread before wait_arrival() in some.
__device__ inline void block_arrival() {
#if __CUDA_ARCH__ < 900
  __syncthreads();
#endif
}

__device__ inline std::uint32_t cluster_address(const void* place, unsigned rank) {
  std::uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(place)), "r"(rank));
  return address;
}

// Writes to the same place in block `rank` and counts at its arrival.
__device__ inline void send(float4* place, Arrival* arrival, unsigned rank, const float4& value) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(cluster_address(place, rank)),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(cluster_address(arrival, rank))
      : "memory");
#else
  *place = value;
#endif
}

__device__ inline void send(float* place, Arrival* arrival, unsigned rank, float value) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
          cluster_address(place, rank)),
      "f"(value), "r"(cluster_address(arrival, rank))
      : "memory");
#else
  *place = value;
#endif
}

}  // namespace higgs_rt::stream
