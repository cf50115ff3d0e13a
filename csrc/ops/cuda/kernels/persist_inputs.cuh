// A warp's part of a product's inputs, and its sums of a tile.
#pragma once

#include "ops/cuda/kernels/persist_feed.cuh"
#include "ops/cuda/kernels/stream_kernel.cuh"

namespace higgs_rt::persist {

// Inputs of up to kC chunks, 64 of each, straight from the cells into registers: a lane has 8 of
// each half of them of row lane / 4 (layout: stream_inputs.cuh). Chunks and rows that do not exist
// are zeros.
template <int kC>
struct Inputs {
  uint4 x[kC][2];

  // `from`: this lane's place in row 0 of the first chunk.
  __device__ void bring(const unsigned char* from, std::int64_t row_bytes, int rows, int chunks) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    // One lane looks for one cell until it is there: all of them would keep the L2 cache busy.
    if (threadIdx.x % 32 == 3) wait_cell(from + (chunks - 1) * kChunkRowBytes + 64);
    __syncwarp();
    const auto read = [&](int c, int h) {
      return read_cell(from + g * row_bytes + c * kChunkRowBytes + h * 64);
    };
#pragma unroll
    for (int c = 0; c < kC; ++c) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        x[c][h] = g < rows && c < chunks ? read(c, h) : make_uint4(0, 0, 0, 0);
      }
    }
    // Mostly all of them are there: one comparison.
    std::uint32_t most = 0;
#pragma unroll
    for (const auto& chunk : x) {
#pragma unroll
      for (const uint4& v : chunk) most = max(most, max(max(v.x, v.y), max(v.z, v.w)));
    }
    bool all = most != kEmpty;
    while (!all) {
      all = true;
#pragma unroll
      for (int c = 0; c < kC; ++c) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (is_there(x[c][h])) continue;
          x[c][h] = read(c, h);
          all = false;
        }
      }
    }
    __syncwarp();
  }
};

// Where sums of a warp are, [kRows][kSumPitch]: without room between rows, the outputs' halves of
// every second pair of rows changed places, so that threads that join them read different banks,
// and of the lanes that write them two one.
constexpr int kSumPitch = stream::kTile;
// Number `o` of row n, 0 or a multiple of 4.
__device__ inline int sum_place(int n, int o) { return n * kSumPitch + (o ^ n / 2 % 2 * 8); }

// A warp's sums of a tile. Each half of a chunk has accumulators of its own, for no instruction to
// wait for the one before.
struct TileSums {
  float sum[2][4] = {};  // [half of a chunk][2 outputs][2 rows]

  __device__ void add(int c, const uint4& low, const uint4& high, const uint4& x) {
    multiply_add(sum[c], low.x, high.x, low.y, high.y, x.x, x.y);
    multiply_add(sum[c], low.z, high.z, low.w, high.w, x.z, x.w);
  }
  // Both halves' sums into the first one's.
  __device__ void join() {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[0][i] += sum[1][i], sum[1][i] = 0.0f;
  }
  // Place of number 0 in sums [kWarps, kRows, kSumPitch], and of number i from there.
  static __device__ int first() {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    return warp * kRows * kSumPitch + sum_place(lane % 4 * 2, 0) + lane / 4;
  }
  static __device__ int at(int i) {
    const int half = threadIdx.x % 2 == 0 ? 8 : -8;  // sum_place()
    return i % 2 * kSumPitch + i / 2 * half;
  }
  __device__ void store(float* sums) const {
    float* to = sums + first();
#pragma unroll
    for (int i = 0; i < 4; ++i) to[at(i)] = sum[0][i] + sum[1][i];
  }
};

// Adds the pieces of a tile. Sums are joined behind every one but the last.
template <int kC>
__device__ inline void multiply(TileSums& sums, Queue& queue, const Inputs<kC>& inputs,
                                int chunks) {
#pragma unroll
  for (int chunk = 0; chunk < kC; ++chunk) {
    if (chunk >= chunks) break;
    if (chunk % kPieceChunks == 0) {
      if (chunk > 0) sums.join();
      queue.wait();
    }
    uint4 low[2], high[2];
    queue.take(chunk % kPieceChunks, low, high);
#pragma unroll
    for (int c = 0; c < 2; ++c) sums.add(c, low[c], high[c], inputs.x[chunk][c]);
    if (chunk % kPieceChunks == kPieceChunks - 1 || chunk + 1 == chunks) queue.release();
  }
}

}  // namespace higgs_rt::persist
