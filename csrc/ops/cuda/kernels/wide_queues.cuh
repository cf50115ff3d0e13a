// The queues of a wide product in shared memory and who fills them (sm_90a).
#pragma once

#include "ops/cuda/kernels/wide_outputs.cuh"
#include "ops/cuda/kernels/wide_parts.cuh"
#include "ops/cuda/kernels/wide_shares.cuh"

namespace higgs_rt::wide {

// Stages that one warp fills and those that multiply empty.
template <int kStageCount, int kStageBytes>
struct Queue {
  static constexpr int kStages = kStageCount;
  static constexpr int kBytes = kStages * kStageBytes;
  struct Barriers {
    Barrier full[kStages], empty[kStages];
  };
  std::uint32_t memory;
  std::uint32_t barriers;  // Barriers

  __device__ std::uint32_t stage(int slot) const { return memory + slot * kStageBytes; }
  __device__ std::uint32_t full(int slot) const { return barriers + slot * 8; }
  __device__ std::uint32_t empty(int slot) const { return barriers + (kStages + slot) * 8; }
  // One thread: what the first kFirst stages need, and the rest.
  template <int kFirst>
  __device__ void begin() const {
#pragma unroll
    for (int i = 0; i < kFirst; ++i) init_barrier(full(i), 1);
    publish_barriers();
    fence_async_proxy();
  }
  // `readers`: arrivals that free a stage.
  template <int kFirst>
  __device__ void init(unsigned readers) const {
#pragma unroll
    for (int i = kFirst; i < kStages; ++i) init_barrier(full(i), 1);
#pragma unroll
    for (int i = 0; i < kStages; ++i) init_barrier(empty(i), readers);
    publish_barriers();
    fence_async_proxy();
  }
};
template <int kRows>
using WeightQueue = Queue<Sizes<kRows>::kWeightStages, Sizes<kRows>::kWeightBytes>;
template <int kRows>
using RowQueue = Queue<Sizes<kRows>::kRowStages, Sizes<kRows>::kRowsBytes>;

// The place of a step in a queue.
struct Place {
  int slot = 0;
  unsigned parity = 0;
  template <int kStages>
  __device__ void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

// Boxes of weights for a stage; used by a whole warp, as RowSource.
struct WeightSource {
  static constexpr int kBytes = kOutputs * kRowBytes;
  const CUtensorMap* map;
  Halves from;
  std::uint64_t policy = once_policy();

  __device__ void bring(std::uint32_t to, std::uint32_t barrier, int chunk) const {
    expect_by_one(barrier, kBytes);
    copy_by_one(to, map, chunk * kChunk, from.low, barrier, policy);
    copy_by_one(to + kBytes / 2, map, chunk * kChunk, from.high, barrier, policy);
  }
};

template <int kRows>
struct RowSource {
  const CUtensorMap* map;
  std::uint64_t policy = often_policy();

  __device__ void bring(std::uint32_t to, std::uint32_t barrier, int chunk) const {
    expect_by_one(barrier, Sizes<kRows>::kRowsBytes);
    copy_by_one(to, map, chunk * kChunk, 0, barrier, policy);
  }
};

// Fills a queue with all chunks of a share, kUnderWay of them on their way at a time; used by a
// whole warp.
template <class Queue, class Source, int kUnderWay>
struct Feed {
  static constexpr int kStages = Queue::kStages;
  const Queue& queue;
  const Source& source;
  int begin, count;  // chunks

  // Asks for the first chunks: nothing of that depends on other threads.
  __device__ void start() const {
#pragma unroll
    for (int i = 0; i < kUnderWay; ++i) {
      if (i >= count) break;
      source.bring(queue.stage(i), queue.full(i), begin + i);
    }
  }
  // For the others, each when its stage is free.
  __device__ void go_on() const {
    Place place{kUnderWay % kStages, kUnderWay / kStages}, late;
#pragma unroll 1
    for (int chunk = kUnderWay; chunk < count; ++chunk) {
      wait_free(place);
      if constexpr (kUnderWay < kStages) {
        wait_barrier(queue.full(late.slot), late.parity);
        late.next<kStages>();
      }
      source.bring(queue.stage(place.slot), queue.full(place.slot), begin + chunk);
      place.next<kStages>();
    }
  }
  // Until the stages behind the last chunk's are free: nothing more comes there.
  __device__ void give_up(int stages) const {
    Place place{count % kStages, static_cast<unsigned>(count / kStages) & 1};
#pragma unroll 1
    for (int i = 0; i < stages; ++i) {
      wait_free(place);
      place.next<kStages>();
    }
  }
  // (At first of a phase before the first: all stages are free.)
  __device__ void wait_free(const Place& place) const {
    wait_barrier(queue.empty(place.slot), place.parity ^ 1);
  }
};

}  // namespace higgs_rt::wide
