// How blocks of a cluster that split the inputs add their sums (sm_90a). Each ends a share of the
// rows: the others send it their sums of these, 16 bytes a thread in the order of wgmma's
// registers, into stages of its queue of weights that it has told them to be free. A barrier there
// counts the bytes, so that nobody meets anybody and no fence waits for what is under way.
#pragma once

#include <type_traits>

#include "ops/cuda/kernels/wide_queues.cuh"

namespace higgs_rt::wide {

constexpr int kUnitBytes = kMultiplying * 16;  // the sums of eight rows
constexpr int kStageUnits = kOutputs * kRowBytes / kUnitBytes;

// Where a thread sends its sums of each eight rows: places in the blocks of the cluster, which
// block, four bits for each, and one bit for each that stays here or goes elsewhere. Found before
// the products, behind which they would take a while.
template <int kEights>
struct Addresses {
  std::uint32_t place[kEights];
  std::uint64_t parts;
  unsigned stay, leave;
  __device__ unsigned part(int i) const { return static_cast<unsigned>(parts >> 4 * i) & 15; }
};

// The sums of a block's rows, from all blocks of its cluster.
template <class Queue>
struct Inbox {
  const Work& work;
  const Share& share;
  const Queue& queue;
  std::uint32_t room;  // barrier: arrivals of the blocks that this one may send to
  std::uint32_t full;  // barrier: what comes in

  // One thread, before the blocks of the cluster have met.
  __device__ void init() const {
    init_barrier(room, static_cast<unsigned>(work.parts));
    init_barrier(full, 1);
    publish_barriers();
    expect_bytes(full, (units() - eights(share.part)) * kUnitBytes);
  }
  __device__ unsigned eights(int part) const {
    return static_cast<unsigned>(work.eights[part + 1] - work.eights[part]);
  }
  __device__ unsigned units() const {
    return static_cast<unsigned>(work.parts) * eights(share.part);
  }
  __device__ int stages() const {
    return static_cast<int>((units() + kStageUnits - 1) / kStageUnits);
  }
  // One thread, when as many stages are free.
  __device__ void open() const {
#pragma unroll 1
    for (int part = 0; part < work.parts; ++part) arrive_there(in_block(room, part));
  }
  __device__ std::uint32_t wrapped(std::uint32_t place) const {
    return place < queue.memory + Queue::kBytes ? place : place - Queue::kBytes;
  }
  // Where this thread's n-th unit lies in a block whose first stage for it is `stage`.
  __device__ std::uint32_t place(int stage, unsigned n) const {
    return wrapped(queue.stage(stage) + n * kUnitBytes + threadIdx.x * 16);
  }
  template <int kEights>
  __device__ Addresses<kEights> addresses() const {
    static_assert(kEights <= 16 && kMaxParts <= 16);
    Addresses<kEights> to{};
    int part = 0;
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      if (j < work.eights[work.parts]) {
        while (j >= work.eights[part + 1]) ++part;
        const unsigned n = static_cast<unsigned>(share.part) * eights(part) +
                           static_cast<unsigned>(j - work.eights[part]);
        to.place[j] = in_block(place(work.open_stage[part], n), static_cast<unsigned>(part));
        to.parts |= static_cast<std::uint64_t>(part) << 4 * j;
        (part == share.part ? to.stay : to.leave) |= 1u << j;
      }
    }
    return to;
  }
  // Every sum to the block that ends it.
  template <int kEights>
  __device__ void send(const Addresses<kEights>& to, const float (&sum)[4 * kEights]) const {
    wait_barrier(room, 0);
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
      store_or_send(to.place[j], in_block(full, to.part(j)), to.stay >> j & 1, to.leave >> j & 1,
                    {sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]});
    }
  }
  // The sums of all parts (of as many as kParts says, which lets all reads go at once; 0: any
  // number), in their order, of eight rows of this block: `at` is this thread's place for those of
  // part 0, `step` bytes lie between two parts.
  template <int kParts>
  __device__ Four joined_of(std::uint32_t at, unsigned step) const {
    if constexpr (kParts == 0) {
      return joined(at, step);
    } else {
      Four one[kParts], all{};
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        one[part] = load_here(at);
        at = wrapped(at + step);
      }
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int k = 0; k < 4; ++k) all.item[k] += one[part].item[k];
      }
      return all;
    }
  }
  // Calls with the number of parts for joined_of().
  template <class Body>
  __device__ void with_parts(Body body) const {
    if (work.parts == 2) return body(std::integral_constant<int, 2>{});
    if (work.parts == 4) return body(std::integral_constant<int, 4>{});
    body(std::integral_constant<int, 0>{});
  }
  // The sums of all parts, in their order, of eight rows of this block: `at` is this thread's place
  // for those of part 0, `step` bytes lie between two parts.
  __device__ Four joined(std::uint32_t at, unsigned step) const {
    Four all{};
#pragma unroll 4
    for (int part = 0; part < work.parts; ++part) {
      const Four one = load_here(at);
      at = wrapped(at + step);
#pragma unroll
      for (int k = 0; k < 4; ++k) all.item[k] += one.item[k];
    }
    return all;
  }
};

}  // namespace higgs_rt::wide
