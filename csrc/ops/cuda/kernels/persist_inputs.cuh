// A warp's part of a product's inputs, and its sums of a tile.
#pragma once

#include "ops/cuda/kernels/persist_feed.cuh"
#include "ops/cuda/kernels/stream_kernel.cuh"

namespace higgs_rt::persist {

// Inputs of up to kC chunks, 64 of each, straight from the cells into registers: a lane has 8 of
// each half of them of rows lane / 4 and lane / 4 + 8 (layout: stream_inputs.cuh). Chunks and rows
// that do not exist are zeros.
template <int kN, int kC>
struct Inputs {
  uint4 x[kC][2][kN / 8];

  // `from`: this lane's place in row 0 of the first chunk.
  __device__ void bring(const unsigned char* from, std::int64_t row_bytes, int rows, int chunks) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    // One lane looks for one cell until it is there: all of them would keep the L2 cache busy.
    if (threadIdx.x % 32 == 3) wait_cell(from + (chunks - 1) * kChunkRowBytes + 64);
    __syncwarp();
    const auto read = [&](int c, int h, int j) {
      return read_cell(from + (g + 8 * j) * row_bytes + c * kChunkRowBytes + h * 64);
    };
#pragma unroll
    for (int c = 0; c < kC; ++c) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int j = 0; j < kN / 8; ++j) {
          const bool exists = g + 8 * j < rows && c < chunks;
          x[c][h][j] = exists ? read(c, h, j) : make_uint4(0, 0, 0, 0);
        }
      }
    }
    // Mostly all of them are there: one comparison.
    std::uint32_t most = 0;
#pragma unroll
    for (const auto& chunk : x) {
#pragma unroll
      for (const auto& half : chunk) {
#pragma unroll
        for (const uint4& v : half) most = max(most, max(max(v.x, v.y), max(v.z, v.w)));
      }
    }
    bool all = most != kEmpty;
    while (!all) {
      all = true;
#pragma unroll
      for (int c = 0; c < kC; ++c) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
          for (int j = 0; j < kN / 8; ++j) {
            if (is_there(x[c][h][j])) continue;
            x[c][h][j] = read(c, h, j);
            all = false;
          }
        }
      }
    }
    __syncwarp();
  }
  // 16 rows as first factors: the four registers of one side by side. `zero` is 0, which the
  // compiler does not know: otherwise it moves them there in front of every instruction.
  __device__ void arrange(std::uint32_t zero) {
    static_assert(kN == 16);
#pragma unroll
    for (auto& chunk : x) {
#pragma unroll
      for (auto& half : chunk) {
        const uint4 low = half[0], high = half[1];
        half[0] = make_uint4(low.x ^ zero, high.x ^ zero, low.y ^ zero, high.y ^ zero);
        half[1] = make_uint4(low.z ^ zero, high.z ^ zero, low.w ^ zero, high.w ^ zero);
      }
    }
  }
};

// Where sums of a warp are, [kN][kSumPitch]: without room between rows, the outputs' halves of
// every second pair of rows changed places, so that threads that join them read different banks,
// and the lanes that write them do (with 8 rows: two of them one).
constexpr int kSumPitch = stream::kTile;
// Number `o` of row n, 0 or a multiple of 4.
__device__ inline int sum_place(int n, int o) { return n * kSumPitch + (o ^ n / 2 % 2 * 8); }

// A warp's sums of a tile. Each half of a chunk has accumulators of its own, for no instruction to
// wait for the one before. 16 rows are the first factor, so that weights are used in the registers
// in which they come out of the ring; of 8 rows that would waste a half.
template <int kN>
struct TileSums {
  static constexpr bool kRowsFirst = kN == 16;
  float sum[2][kN / 8][4] = {};  // [half of a chunk][rows first: 8 outputs, else 8 rows][..]

  __device__ void add(int c, const uint4& low, const uint4& high, const uint4 (&x)[kN / 8]) {
    if constexpr (kRowsFirst) {
      multiply_add(sum[c][0], x[0].x, x[0].y, x[0].z, x[0].w, low.x, low.y);
      multiply_add(sum[c][1], x[0].x, x[0].y, x[0].z, x[0].w, high.x, high.y);
      multiply_add(sum[c][0], x[1].x, x[1].y, x[1].z, x[1].w, low.z, low.w);
      multiply_add(sum[c][1], x[1].x, x[1].y, x[1].z, x[1].w, high.z, high.w);
    } else {
      multiply_add(sum[c][0], low.x, high.x, low.y, high.y, x[0].x, x[0].y);
      multiply_add(sum[c][0], low.z, high.z, low.w, high.w, x[0].z, x[0].w);
    }
  }
  // What store() and load() do.
  __device__ void join() {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[0][j][i] += sum[1][j][i], sum[1][j][i] = 0.0f;
    }
  }
  // Place of number 0 in sums [kWarps, kN, kSumPitch], and of number i from there.
  static __device__ int first() {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int row = kRowsFirst ? lane / 4 : lane % 4 * 2;
    return warp * kN * kSumPitch + sum_place(row, 0) + (kRowsFirst ? lane % 4 * 2 : lane / 4);
  }
  static __device__ int at(int j, int i) {
    const unsigned pair = kRowsFirst ? threadIdx.x / 8 : threadIdx.x;  // of rows
    const int half = pair % 2 == 0 ? 8 : -8;                           // sum_place()
    return kRowsFirst ? j * half + i / 2 * 8 * kSumPitch + i % 2 : i % 2 * kSumPitch + i / 2 * half;
  }
  __device__ void store(float* sums) const {
    float* to = sums + first();
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[at(j, i)] = sum[0][j][i] + sum[1][j][i];
    }
  }
  // Goes on with sums that this warp has stored.
  __device__ void load(const float* sums) {
    const float* from = sums + first();
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[0][j][i] = from[at(j, i)];
    }
  }
};

// Adds pieces of a tile. Sums are joined behind every one but the tile's last, in a pass as from
// one pass to the next.
template <int kN, int kC, int kHalves>
__device__ inline void multiply(TileSums<kN>& sums, Queue<kHalves>& queue,
                                const Inputs<kN, kC>& inputs, int chunks) {
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
