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
// came and one that counts the warps that have read them.
template <int kHalves>
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
                   i < kHalves ? 1u : unsigned{kWarps});
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

// Asks for all of the step's weights, as the ring has room for them. For one warp.
template <int kHalves>
__device__ inline void feed(const PersistStep& step, const Ring<kHalves>& ring, int cluster,
                            int rank) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint64_t policy = stream::read_once_policy();
  int count = 0;  // of halves asked for
  const auto phase = [](int at) { return static_cast<unsigned>(at / kHalves % 2); };
  for (int product = 0; product <= 4 * step.num_layers; ++product) {
    const Stride& stride = kStrides[product == 4 * step.num_layers ? int{kHead} : product % 4];
    const char* matrix = reinterpret_cast<const char*>(step.matrices[product]) +
                         lane % 8 * stride.row + rank * stride.chunks * kChunkRowBytes;
    for (int tile = cluster; tile < stride.tiles; tile += kClusters) {
      const char* rows =
          matrix + std::int64_t{tile} * stride.tile + std::int64_t{tile / 8} * stride.jump;
      for (int chunk = 0; chunk < stride.chunks; chunk += kPieceChunks) {
        const int bytes = min(stride.chunks - chunk, kPieceChunks) * kChunkRowBytes;
#pragma unroll 1
        for (int half = 0; half < 2; ++half, ++count) {
          const int slot = count % kHalves, before = count - kUnderWay;
          if (count >= kHalves) wait_barrier(ring.empty(slot), phase(count - kHalves));
          if (before >= 0) wait_barrier(ring.full(before % kHalves), phase(before));
          const std::uint32_t barrier = ring.full(slot);
          if (lane == 0) {
            expect_bytes(barrier, static_cast<unsigned>(8 * bytes));
          }
          __syncwarp();
          if (lane < 8) {
            copy_bulk(ring.place(slot) + static_cast<std::uint32_t>(lane * kRowPitch),
                      rows + chunk * kChunkRowBytes + half * stride.half, bytes, barrier, policy);
          }
        }
      }
    }
  }
}

// A warp's reading of the ring.
template <int kHalves>
struct Queue {
  Ring<kHalves> ring;
  int slot[2] = {0, 1};  // of the piece's halves
  unsigned phase[2] = {0, 0};

  __device__ void wait() const {
    wait_barrier(ring.full(slot[0]), phase[0]);
    wait_barrier(ring.full(slot[1]), phase[1]);
  }
  // The piece has been read.
  __device__ void release() {
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (threadIdx.x % 32 == 0) arrive_barrier(ring.empty(slot[half]));
      slot[half] += 2;
      if (slot[half] >= kHalves) slot[half] -= kHalves, phase[half] ^= 1;
    }
  }
  // This warp's part of chunk `chunk` of the piece as first factors: rows lane / 4 and lane / 4 +
  // 8, two halves of the 64 inputs.
  __device__ void take(int chunk, uint4 (&low)[2], uint4 (&high)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const auto at = static_cast<std::uint32_t>(lane / 4 * kRowPitch + chunk * kChunkRowBytes +
                                               warp * 128 + lane % 4 * 16);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      low[c] = stream::load_shared(ring.place(slot[0]) + at + static_cast<std::uint32_t>(64 * c));
      high[c] = stream::load_shared(ring.place(slot[1]) + at + static_cast<std::uint32_t>(64 * c));
    }
  }
};

// Sums of one warp over the kC chunks of a tile; each half of a chunk has accumulators of its own,
// for no instruction to wait for the one before.
template <int kN, int kC, int kHalves>
__device__ inline void multiply(float (&acc)[2][kN / 8][4], Queue<kHalves>& queue,
                                const uint4 (&b)[kC][2][kN / 8]) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[c][j][i] = 0.0f;
    }
  }
#pragma unroll
  for (int chunk = 0; chunk < kC; ++chunk) {
    if (chunk % kPieceChunks == 0) queue.wait();
    uint4 low[2], high[2];
    queue.take(chunk % kPieceChunks, low, high);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        const uint4& x = b[chunk][c][j];
        multiply_add(acc[c][j], low[c].x, high[c].x, low[c].y, high[c].y, x.x, x.y);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        const uint4& x = b[chunk][c][j];
        multiply_add(acc[c][j], low[c].z, high[c].z, low[c].w, high[c].w, x.z, x.w);
      }
    }
    if (chunk % kPieceChunks == kPieceChunks - 1 || chunk + 1 == kC) queue.release();
  }
}

}  // namespace higgs_rt::persist
