// The queue of weights of the persistent kernel: the copy engine brings them, tile after tile over
// all products of the step, whatever the block waits for meanwhile. (Where the warps that multiply
// issued the copies themselves, they stood while the memory was busy, so that a full queue was
// emptied no faster than memory fills it.)
#pragma once

#include "ops/cuda/kernels/barrier.cuh"
#include "ops/cuda/kernels/persist_mail.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"

namespace higgs_rt::persist {

using stream::kWarps;

enum Kind : int { kQkv, kO, kGateUp, kDown, kHead, kEnd };  // of a product

constexpr int kQkvRows = (Shape::kHeads + 2 * Shape::kKvHeads) * Shape::kDim;
constexpr int kCluster = 2;
// A power of two gives every cluster the same number of tiles (but for the head), and leaves a few
// multiprocessors to the codec.
constexpr int kClusters = 64;

// The inputs of a product are halved among the blocks of a cluster, and taken in chunks of 512, 64
// for each warp. A piece is 16 rows of a tile and up to 3 chunks.
constexpr int kChunkInputs = 64 * kWarps, kChunkRowBytes = 2 * kChunkInputs;
constexpr int kPieceChunks = 3;
constexpr int kRowPitch = kPieceChunks * kChunkRowBytes + 64;  // two rows lie in different banks
constexpr int kHalfBytes = 8 * kRowPitch;                      // of 8 rows of a piece
// Halves in shared memory: with four pieces others' results came later (docs/performance.md).
constexpr int kHalves = 8;

__host__ __device__ constexpr int inputs_of(int kind) {
  return kind == kDown ? Shape::kFfn : Shape::kHidden;
}
__host__ __device__ constexpr int tiles_of(int kind) {
  return (kind == kQkv      ? kQkvRows
          : kind == kGateUp ? 2 * Shape::kFfn
          : kind == kHead   ? Shape::kHead
                            : Shape::kHidden) /
         16;
}
// Chunks of a tile in a block.
__host__ __device__ constexpr int chunks_of(int kind) {
  return inputs_of(kind) / (kChunkInputs * kCluster);
}
static_assert(Shape::kHidden % (kChunkInputs * kCluster) == 0);
static_assert(Shape::kFfn % (kChunkInputs * kCluster) == 0);
static_assert(Shape::kHead % 16 == 0 && Shape::kHeads * Shape::kDim == Shape::kHidden);

// The tiles of a cluster in the order in which it computes them.
__device__ inline int tile_of(int cluster, int own) { return cluster + own * kClusters; }

// Rows of a tile: row(t) = rows t + jump (t / 8) and 7 more, and the same `half` rows further on
// (weight_row() of stream_outputs.cuh).
struct Walk {
  int rows, jump, half;
};
__host__ __device__ constexpr Walk walk_of(int kind) {
  return kind == kQkv      ? Walk{8, Shape::kDim - 64, Shape::kDim / 2}
         : kind == kGateUp ? Walk{8, 0, Shape::kFfn}
                           : Walk{16, 0, 8};
}
static_assert(Shape::kDim == 128);

// The same in bytes, to be found by a running kind.
struct Stride {
  int tile, jump, half, row, tiles, chunks;
};
constexpr Stride stride_of(int kind) {
  const int bytes = 2 * inputs_of(kind);
  const Walk walk = walk_of(kind);
  return {walk.rows * bytes, walk.jump * bytes, walk.half * bytes, bytes,
          tiles_of(kind),    chunks_of(kind)};
}
__constant__ const Stride kStrides[kEnd] = {stride_of(kQkv), stride_of(kO), stride_of(kGateUp),
                                            stride_of(kDown), stride_of(kHead)};

// Where the halves of pieces are: a ring of places, each with a barrier that counts the bytes that
// came and one that counts the lanes that have read them.
struct Ring {
  static constexpr int kBarriers = 2 * kHalves;
  std::uint32_t halves;  // [kHalves][kHalfBytes]
  std::uint32_t barriers;

  __device__ std::uint32_t place(int slot) const {
    return halves + static_cast<std::uint32_t>(slot * kHalfBytes);
  }
  __device__ std::uint32_t full(int slot) const {
    return barriers + static_cast<std::uint32_t>(8 * slot);
  }
  __device__ std::uint32_t empty(int slot) const {
    return barriers + static_cast<std::uint32_t>(8 * (kHalves + slot));
  }
  __device__ void init() const {
    for (int i = 0; i < kBarriers; ++i) {
      init_barrier(barriers + static_cast<std::uint32_t>(8 * i),
                   i < kHalves ? 1u : unsigned{32 * kWarps});
    }
    publish_barriers();
  }
};

__device__ inline void copy_bulk(std::uint32_t to, const char* from, int bytes,
                                 std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// Warps beside those that multiply, which give them most of their registers, as only four warps
// together can: one asks for weights, the others make the factors of the norms.
constexpr int kScalers = 3, kHelpers = 32 * (1 + kScalers);

// Halves of pieces under way at a time: what blocks need of each other waits behind the weights
// that they have asked for (docs/performance.md).
constexpr int kUnderWay = 2;

// True for one lane of a warp, and known to the compiler to be so.
__device__ inline bool is_elected() {
  unsigned one;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(one));
  return one != 0;
}

// The places of the ring in the order of their filling. For one warp. What it asks for is the same
// in all of its lanes: copies that differ from lane to lane are issued in a loop over the lanes.
struct Filling {
  Ring ring;
  int count = 0;           // of halves asked for
  int next = 0, last = 0;  // places: to be filled; with the oldest copies that may be under way
  unsigned next_phase = 0, last_phase = 0;

  // Until there is room and little enough is under way.
  __device__ void wait() {
    if (count >= kHalves) wait_barrier(ring.empty(next), next_phase ^ 1);
    if (count < kUnderWay) return;
    wait_barrier(ring.full(last), last_phase);
    if (++last == kHalves) last = 0, last_phase ^= 1;
  }
  // Asks for `bytes` of 8 rows. For one lane.
  __device__ void copy(const char* from, int row_bytes, int bytes, std::uint64_t policy) const {
    const std::uint32_t to = ring.place(next), barrier = ring.full(next);
    expect_bytes(barrier, static_cast<unsigned>(8 * bytes));
#pragma unroll
    for (int row = 0; row < 8; ++row) {
      copy_bulk(to + static_cast<std::uint32_t>(row * kRowPitch), from + row * row_bytes, bytes,
                barrier, policy);
    }
  }
  __device__ void advance() {
    ++count;
    if (++next == kHalves) next = 0, next_phase ^= 1;
  }
};

// Asks for all of the step's weights, as the ring has room for them. For one warp.
__device__ inline void feed(const PersistStep& step, const Ring& ring, int cluster, int rank) {
  const std::uint64_t policy = stream::read_once_policy();
  const bool one = is_elected();
  Filling filling{ring};
#pragma unroll 1
  for (int product = 0; product <= 4 * step.num_layers; ++product) {
    const int kind = product == 4 * step.num_layers ? int{kHead} : product % 4;
    const int row_bytes = kStrides[kind].row, half_bytes = kStrides[kind].half;
    const int chunks = kStrides[kind].chunks;
    const char* matrix =
        reinterpret_cast<const char*>(step.matrices[product]) + rank * chunks * kChunkRowBytes;
#pragma unroll 1
    for (int own = 0; tile_of(cluster, own) < kStrides[kind].tiles; ++own) {
      const int tile = tile_of(cluster, own);
      const char* rows = matrix + std::int64_t{tile} * kStrides[kind].tile +
                         std::int64_t{tile / 8} * kStrides[kind].jump;
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; chunk += kPieceChunks) {
        const int bytes = min(chunks - chunk, kPieceChunks) * kChunkRowBytes;
        const char* from = rows + chunk * kChunkRowBytes;
#pragma unroll 1
        for (int half = 0; half < 2; ++half, from += half_bytes) {
          filling.wait();
          if (one) filling.copy(from, row_bytes, bytes, policy);
          filling.advance();
        }
      }
    }
  }
}

// A warp's reading of the ring.
struct Queue {
  Ring ring;
  int slot = 0;  // of the piece's first half
  unsigned phase = 0;

  __device__ int second() const { return slot + 1 == kHalves ? 0 : slot + 1; }
  __device__ void wait() const {
    wait_barrier(ring.full(slot), phase);
    wait_barrier(ring.full(second()), phase ^ (slot + 1 == kHalves ? 1u : 0u));
  }
  // The piece has been read. Every lane orders its reads before the copies that fill the places
  // again, which are of another proxy, and arrives itself.
  __device__ void release() {
    fence_async_proxy();
    arrive_barrier(ring.empty(slot));
    arrive_barrier(ring.empty(second()));
    slot += 2;
    if (slot >= kHalves) slot -= kHalves, phase ^= 1;
  }
  // This warp's part of chunk `chunk` of the piece as first factors: rows lane / 4 and lane / 4 +
  // 8, two halves of the 64 inputs.
  __device__ void take(int chunk, uint4 (&low)[2], uint4 (&high)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const auto at = static_cast<std::uint32_t>(lane / 4 * kRowPitch + chunk * kChunkRowBytes +
                                               warp * 128 + lane % 4 * 16);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      low[c] = stream::load_shared(ring.place(slot) + at + static_cast<std::uint32_t>(64 * c));
      high[c] = stream::load_shared(ring.place(second()) + at + static_cast<std::uint32_t>(64 * c));
    }
  }
};

}  // namespace higgs_rt::persist
