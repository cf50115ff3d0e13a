// How the weights of a weight-streaming product come: the places in shared memory, the queue of a
// warp, and the sums of a warp over it.
#pragma once

#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_parts.cuh"

namespace higgs_rt::stream {

constexpr int kUnits = 1;  // units of 16 outputs in a tile; two were slower (docs/performance.md)
constexpr int kTile = 16 * kUnits;
constexpr int kRanges = kWarps / kUnits;  // of the inputs of a block, one for each warp of a unit
constexpr int kInboxes = 4;               // see send_sums()
constexpr int kPitch = kTile + 4;         // floats of a row of sums
constexpr int kStageBytes = kWarps * 16 * kChunkBytes;  // one step of all warps
constexpr int kMaxCluster = 4;

// Places in shared memory, in bytes; `chunks` is the largest number of chunks of a block, `stages`
// the steps that are under way.
template <int kN, int kStages>
struct Layout {
  int chunks;
  int norm_bytes;
  __host__ __device__ int queue() const { return chunks * (kN / 8) * 1024; }
  __host__ __device__ int sums() const { return queue() + kStages * kStageBytes; }
  __host__ __device__ int inbox() const { return sums() + kRanges * kN * kPitch * 4; }
  __host__ __device__ int squares() const { return inbox() + kInboxes * kN * kTile * 4; }
  __host__ __device__ int arrivals() const { return squares() + (kMaxCluster + 1) * kN * 4; }
  __host__ __device__ int norms() const { return arrivals() + kInboxes * 8; }
  __host__ __device__ int tables() const { return norms() + norm_bytes; }
};

// A warp's queue of weights: a stage has 16 rows of 128 bytes, which the lanes copy as whole lines
// and read in the order of the matrix instruction (stream_inputs.cuh): [half of the inputs][half of
// the rows][row][16-byte piece], the second half turned by 64 bytes to keep out of the banks of the
// first.
template <int kStages, class Output>
struct Feed {
  const Output& output;
  const char* weight;
  std::int64_t row_bytes;
  int begin, end;  // chunks of this warp
  int tile, tiles, stride;
  std::uint32_t queue;  // of this warp, stage 0
  std::uint64_t policy = read_once_policy();
  int chunk = 0;
  int stage = 0;  // that comes next
  const char* from[4] = {};

  __device__ void start() {
    chunk = begin;
    if (begin == end) tile = tiles;
    aim();
  }
  __device__ void aim() {
    if (tile >= tiles) return;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int unit = min(tile * kUnits + warp % kUnits, output.units() - 1);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = output.weight_row(unit, i % 2 * 4 + lane / 8, i / 2);
      from[i] = weight + row * row_bytes + lane % 8 * 16;
    }
  }
  // Asks for the next chunk, into the stage that was read last.
  __device__ void next() {
    const int lane = static_cast<int>(threadIdx.x) % 32, half = lane % 8 / 4;
    if (tile < tiles) {
      const std::uint32_t to =
          queue + static_cast<std::uint32_t>(stage * kStageBytes + half * 1024 +
                                             (lane / 8 * 64 + lane % 4 * 16 ^ half * 64));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        copy_async(to + i / 2 * 512 + i % 2 * 256, from[i] + chunk * kChunkBytes, policy);
      }
      if (++chunk == end) {
        chunk = begin;
        tile += stride;
        aim();
      }
    }
    copy_async_commit();
    if (++stage == kStages) stage = 0;
  }
  // The next chunk as first factors: rows lane / 4 and lane / 4 + 8 of both halves of the inputs.
  __device__ void take(uint4 (&low)[2], uint4 (&high)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    copy_async_wait<kStages - 1>();
    __syncwarp();
    const std::uint32_t at = queue + static_cast<std::uint32_t>(stage * kStageBytes);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const std::uint32_t place = at + static_cast<std::uint32_t>(c * 1024 + (lane * 16 ^ c * 64));
      low[c] = load_shared(place), high[c] = load_shared(place + 512);
    }
  }
};

// Sums of one warp over its chunks; each half of a chunk has accumulators of its own, for no
// instruction to wait for the one before. `x` is this lane's place in the first chunk.
template <int kN, int kStages, class Output>
__device__ inline void multiply_tile(float (&acc)[2][kN / 8][4], Feed<kStages, Output>& feed,
                                     std::uint32_t x) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[c][j][i] = 0.0f;
    }
  }
#pragma unroll 1
  for (int chunk = feed.begin; chunk < feed.end; ++chunk, x += kN / 8 * 1024) {
    uint4 b[2][kN / 8], low[2], high[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) b[c][j] = load_shared(x + (c * (kN / 8) + j) * 512);
    }
    feed.take(low, high);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        multiply_add(acc[c][j], low[c].x, high[c].x, low[c].y, high[c].y, b[c][j].x, b[c][j].y);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        multiply_add(acc[c][j], low[c].z, high[c].z, low[c].w, high[c].w, b[c][j].z, b[c][j].w);
      }
    }
    __syncwarp();  // every lane has read the stage
    feed.next();
  }
}

}  // namespace higgs_rt::stream
