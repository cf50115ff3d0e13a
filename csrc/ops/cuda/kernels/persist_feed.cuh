// The queue of weights of the persistent kernel: the copy engine brings them, tile after tile over
// all products of the step, whatever the block waits for meanwhile. (Where the warps that multiply
// issued the copies themselves, they stood while the memory was busy, so that a full queue was
// emptied no faster than memory fills it.)
#pragma once

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
constexpr int kPieceBytes = 16 * kRowPitch;

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

// Where the pieces are: a ring of places, each with a barrier that counts the bytes that came.
template <int kStages>
struct Ring {
  std::uint32_t pieces;  // [kStages][kPieceBytes]
  std::uint32_t full;
  int stage = 0;
  unsigned phase = 0;

  __device__ void forward() {
    if (++stage < kStages) return;
    stage = 0, phase ^= 1;
  }
  __device__ std::uint32_t place() const {
    return pieces + static_cast<std::uint32_t>(stage * kPieceBytes);
  }
  __device__ std::uint32_t barrier() const { return full + static_cast<std::uint32_t>(8 * stage); }
  __device__ void init() const {
    for (int s = 0; s < kStages; ++s) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(full + 8 * s), "r"(kWarps)
                   : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
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

// What to ask for next, the same in all warps.
struct Cursor {
  int product, tile, chunk, stage;
};

// Asks for the next piece of the step's weights, into the place that all warps have read last; each
// warp for two rows.
template <int kStages>
__device__ inline void fill(Cursor& at, const PersistStep& step, const Ring<kStages>& ring,
                            int cluster, int rank) {
  if (at.product > 4 * step.num_layers) return;
  const Stride& stride = kStrides[at.product == 4 * step.num_layers ? int{kHead} : at.product % 4];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int count = min(stride.chunks - at.chunk, kPieceChunks), bytes = count * kChunkRowBytes;
  if (threadIdx.x % 32 == 0) {
    const std::uint32_t barrier = ring.full + static_cast<std::uint32_t>(8 * at.stage);
    const std::uint32_t to =
        ring.pieces + static_cast<std::uint32_t>(at.stage * kPieceBytes + warp * kRowPitch);
    const char* from = reinterpret_cast<const char*>(step.matrices[at.product]) +
                       std::int64_t{at.tile} * stride.tile +
                       std::int64_t{at.tile / 8} * stride.jump + warp * stride.row +
                       (rank * stride.chunks + at.chunk) * kChunkRowBytes;
    const std::uint64_t policy = stream::read_once_policy();
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                 "r"(2 * bytes)
                 : "memory");
    copy_bulk(to, from, bytes, barrier, policy);
    copy_bulk(to + 8 * kRowPitch, from + stride.half, bytes, barrier, policy);
  }
  __syncwarp();
  if (++at.stage == kStages) at.stage = 0;
  at.chunk += count;
  if (at.chunk < stride.chunks) return;
  at.chunk = 0, at.tile += kClusters;
  if (at.tile < stride.tiles) return;
  at.tile = cluster, ++at.product;
}

// A warp's reading of the ring.
template <int kStages>
struct Queue {
  Ring<kStages> ring;

  __device__ void wait() const {
    unsigned done = 0;
    while (done == 0) {
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
          "selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(ring.barrier()), "r"(ring.phase)
          : "memory");
    }
  }
  // This warp's part of chunk `chunk` of the piece as first factors: rows lane / 4 and lane / 4 +
  // 8, two halves of the 64 inputs.
  __device__ void take(int chunk, uint4 (&low)[2], uint4 (&high)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const std::uint32_t at =
        ring.place() + static_cast<std::uint32_t>(lane / 4 * kRowPitch + chunk * kChunkRowBytes +
                                                  warp * 128 + lane % 4 * 16);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      low[c] = stream::load_shared(at + static_cast<std::uint32_t>(64 * c));
      high[c] = stream::load_shared(at + static_cast<std::uint32_t>(64 * c + 8 * kRowPitch));
    }
  }
};

// Sums of one warp over the kC chunks of a tile; each half of a chunk has accumulators of its own,
// for no instruction to wait for the one before. `emptied` is called after all pieces but the last.
template <int kN, int kC, int kStages, class Emptied>
__device__ inline void multiply(float (&acc)[2][kN / 8][4], Queue<kStages>& queue,
                                const uint4 (&b)[kC][2][kN / 8], Emptied emptied) {
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
    if (chunk % kPieceChunks != kPieceChunks - 1 && chunk + 1 != kC) continue;
    queue.ring.forward();
    if (chunk + 1 != kC) emptied();
  }
}

}  // namespace higgs_rt::persist
