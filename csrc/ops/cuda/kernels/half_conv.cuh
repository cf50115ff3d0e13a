// What the convolution kernels on the tensor cores share: where a block is, and how its tiles come
// to shared memory. A block takes kBlockM times of the items laid end to end and kBlockN outputs;
// it loads the times of one chunk of channels once and shifts them by rows from tap to tap.
#pragma once

#include "ops/cuda/kernels/half_codec.h"
#include "ops/cuda/kernels/half_launch.cuh"
#include "ops/cuda/kernels/half_mma.cuh"
#include "ops/cuda/kernels/half_wgmma.cuh"

namespace higgs_rt {

// Sizes of a kernel. kStages: steps whose weights are under way or in use; kAhead: steps by which
// times are asked for ahead. kBlockM times, of which tiles of 16 go to each warp.
template <int kTapsOf, int kChunkOf, int kBlockNOf, int kStagesOf, int kAheadOf = kStagesOf - 1>
struct HalfSizes {
  static constexpr int kAhead = kAheadOf;
  static constexpr int kTaps = kTapsOf, kChunk = kChunkOf, kBlockN = kBlockNOf, kStages = kStagesOf;
  static constexpr int kPieces = kChunk / 8;  // 16 bytes each, of a row
  static constexpr int kBlockM = kBlockN >= 128 ? 128 : 256;
  static constexpr int kBuffers = (kAhead + kTaps - 1) / kTaps + 1;

  static __host__ __device__ int tile_rows(int dilation) {
    return (kBlockM + (kTaps - 1) * dilation + 7) / 8 * 8;
  }
  static __host__ __device__ int buffers(int chunks) {
    return chunks < kBuffers ? chunks : kBuffers;
  }
};

// Products by each warp on its own (compute capability 8.0 and later).
template <int kTapsOf, int kChunkOf, int kBlockNOf, int kStagesOf = 3>
struct WarpShape : HalfSizes<kTapsOf, kChunkOf, kBlockNOf, kStagesOf> {
  using Sizes = HalfSizes<kTapsOf, kChunkOf, kBlockNOf, kStagesOf>;
  using Tile = HalfTile<Sizes::kChunk>;
  static constexpr int kWarpsN = Sizes::kBlockN == 128 ? 2 : 1;
  static constexpr int kTilesM = 4, kTilesN = Sizes::kBlockN / kWarpsN / 8;
  static constexpr bool kAsync = false;  // multiply() goes on until finish(),
  static constexpr int kPending = 0;     // and so many of them still then
  static constexpr int kThreads = 128;
  static constexpr bool kBulk = false;  // weights by the copy engine

  // A tile of `rows` rows and kChunk channels in shared memory: its size, and where a piece is.
  static constexpr __host__ __device__ int tile_bytes(int rows) { return rows * Tile::kRowBytes; }
  static __device__ std::uint32_t offset(int row, int piece, int) {
    return Tile::offset(row, piece);
  }
  // Where the i-th piece of the packed weights goes.
  static __device__ std::uint32_t weight_offset(int i) {
    return Tile::offset(i / Sizes::kPieces, i % Sizes::kPieces);
  }
  // First row of tile m, and first output, of the calling warp.
  static __device__ int first_row(int m) { return threadIdx.x / 32 / kWarpsN * 64 + m * 16; }
  static __device__ int first_output() {
    return threadIdx.x / 32 % kWarpsN * (Sizes::kBlockN / kWarpsN);
  }
  // sum += rows `row`.. of tile x, which has `rows` of them, times the weights w.
  static __device__ void multiply(std::uint32_t x, int row, int, std::uint32_t w,
                                  float (&sum)[kTilesM][kTilesN][4]) {
    multiply_tiles<Sizes::kChunk>(x, row + first_row(0), w, first_output(), sum);
  }
  static __device__ void finish(const float (&)[kTilesM][kTilesN][4]) {}
};

template <class S>
std::size_t half_shared_bytes(const HalfConv& conv) {
  const int tiles = S::buffers(conv.channels / S::kChunk);
  return static_cast<std::size_t>(tiles * S::tile_bytes(S::tile_rows(conv.dilation)) +
                                  S::kStages * (S::tile_bytes(S::kBlockN) + (S::kBulk ? 8 : 0)));
}

// Where a block is, and where its tiles lie in shared memory.
struct HalfPlace {
  int total;  // times of all items
  int first;  // first of this block's
  int phase;
  int output;  // first output
  int shift;   // of the first tap
  std::uint32_t x, weights;
};

// Divides numbers from 0 to 2^24: rows of a launch.
struct Divider {
  int by;
  float inverse;

  __device__ explicit Divider(int of) : by(of), inverse(1.0F / static_cast<float>(of)) {}
  __device__ int quotient(int value) const {
    const int near = static_cast<int>(static_cast<float>(value) * inverse);
    const int rest = value - near * by;
    return near + (rest >= by ? 1 : 0) - (rest < 0 ? 1 : 0);
  }
};

// The first time of the calling block, of tiles of `of_block`; `total` or more: it has none.
__device__ inline int first_time(const HalfBatch& batch, int total, int of_block) {
  const int block = static_cast<int>(blockIdx.x);
  const int last = (total + of_block - 1) / of_block - 1;
  return (batch.reverse && block <= last ? last - block : block) * of_block;
}
template <class S>
__device__ void load_times(const HalfConv& conv, const HalfPlace& place, int chunk) {
  const int rows = S::tile_rows(conv.dilation);
  const std::uint32_t buffer = place.x + chunk % S::kBuffers * S::tile_bytes(rows);
  const bool dense = conv.in_rows == conv.rows;
  const Divider item_rows(conv.rows);
  for (int i = threadIdx.x; i < rows * S::kPieces; i += S::kThreads) {
    const int row = i / S::kPieces, piece = i % S::kPieces;
    const int time = place.first + place.shift + row;
    const bool exists = time >= 0 && time < place.total;
    int from = exists ? time : 0;
    if (!dense) from += item_rows.quotient(from) * (conv.in_rows - conv.rows) + conv.in_begin;
    const __half* source =
        conv.x + static_cast<std::size_t>(from) * conv.channels + chunk * S::kChunk + piece * 8;
    copy_async(buffer + S::offset(row, piece, rows), source, exists);
  }
}

// Barriers of the stages, behind their weights. To be followed by __syncthreads().
template <class S>
__device__ std::uint32_t stage_barrier(const HalfPlace& place, int step) {
  return place.weights + S::kStages * S::tile_bytes(S::kBlockN) + step % S::kStages * 8;
}
template <class S>
__device__ void init_stages(const HalfPlace& place) {
  if constexpr (S::kBulk) {
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < S::kStages; ++stage) {
        init_barrier(stage_barrier<S>(place, stage), 1);
      }
      publish_barriers();
      fence_async_proxy();
    }
  }
}
// Before multiply(); ordinary copies are waited for by copy_wait().
template <class S>
__device__ void wait_weights(const HalfPlace& place, int step) {
  if constexpr (S::kBulk) wait_barrier(stage_barrier<S>(place, step), step / S::kStages % 2);
}

// The weights of step `step`, S::kChunk channels by S::kBlockN outputs; `source` is its first
// number.
template <class S>
__device__ void load_weights(const HalfPlace& place, const __half* source, int step) {
  const std::uint32_t buffer = place.weights + step % S::kStages * S::tile_bytes(S::kBlockN);
  if constexpr (S::kBulk) {
    constexpr int kBytes = S::tile_bytes(S::kBlockN);
    if (threadIdx.x == 0) copy_bulk(buffer, source, kBytes, stage_barrier<S>(place, step));
  } else {
#pragma unroll
    for (int i = threadIdx.x; i < S::kBlockN * S::kPieces; i += S::kThreads) {
      copy_async(buffer + S::weight_offset(i), source + i * 8, true);
    }
  }
}

// Step: a chunk of channels and a tap. The times of a chunk come with its first tap.
template <class S>
__device__ void load_step_times(const HalfConv& conv, const HalfPlace& place, int step) {
  if (step % S::kTaps == 0) load_times<S>(conv, place, step / S::kTaps);
}
template <class S>
__device__ void load_step_weights(const HalfConv& conv, const HalfPlace& place, int step) {
  const int steps = conv.channels / S::kChunk * S::kTaps;
  const std::size_t block = static_cast<std::size_t>(place.phase) * steps + step;
  load_weights<S>(place, conv.weight + (block * conv.outputs + place.output) * S::kChunk, step);
}

}  // namespace higgs_rt
