// The weight-streaming product.
//
// A block of 8 warps belongs to a cluster that shares the inputs of its outputs: every warp of the
// cluster takes a range of inputs, in every tile of outputs. Weights come by asynchronous copies
// into a queue in shared memory that each thread has for itself: a thread copies the very bytes
// that it needs as its part of the matrix instruction, so nothing has to be synchronised, and the
// copies run ahead over the ends of tiles. The first of them are issued before the kernel waits for
// the kernels ahead of it. After a tile the warps' sums are added in order, each block sends its
// sums for a share of the rows to the block that owns the share, and that block writes the result
// while the next tile is under way.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/stream_outputs.cuh"
#include "ops/cuda/kernels/stream_parts.cuh"

namespace higgs_rt::stream {

constexpr int kUnits = 2;  // units of 16 outputs in a tile
constexpr int kTile = 16 * kUnits;
constexpr int kStageBytes = 2 * 16 * kThreads;  // one step of all warps
constexpr int kMaxCluster = 8;

// Steps that are under way. Two blocks fit a multiprocessor of compute capability 9.0 up to 16
// rows, so that the next kernel's first copies run while this one ends.
template <int kN>
constexpr int kStages = kN == 8    ? 10
                        : kN == 16 ? 7
                                   : 12;

// Places in shared memory, in bytes; `chunks` is the largest number of chunks of a block.
template <int kN>
struct Layout {
  int chunks;
  static constexpr int kPitch = kTile + 4;  // floats of a row's sums
  __host__ __device__ int queue() const { return chunks * (kN / 8) * 512; }
  __host__ __device__ int sums() const { return queue() + kStages<kN> * kStageBytes; }
  __host__ __device__ int inbox() const { return sums() + kWarps * kN * kPitch * 4; }
  __host__ __device__ int squares() const { return inbox() + 2 * kN * kTile * 4; }
  __host__ __device__ int tables() const { return squares() + (kMaxCluster + 1) * kN * 4; }
};

// One thread's queue of weights.
template <int kN, class Output>
struct Feed {
  const Output& output;
  const char* weight;
  std::int64_t row_bytes;
  int begin, end;  // chunks of this warp
  int tile, tiles, stride;
  std::uint32_t queue;  // this thread's place in stage 0
  int unit = 0, chunk = 0;
  const char* low = nullptr;
  const char* high = nullptr;

  __device__ void start() {
    chunk = begin;
    if (begin == end) tile = tiles;
    aim();
  }
  __device__ void aim() {
    if (tile >= tiles) return;
    const int g = static_cast<int>(threadIdx.x) % 32 / 4, part = static_cast<int>(threadIdx.x) % 4;
    const int u = min(tile * kUnits + unit, output.units() - 1);
    const char* base = weight + part * 16;
    low = base + output.weight_row(u, g, 0) * row_bytes;
    high = base + output.weight_row(u, g, 1) * row_bytes;
  }
  // Asks for the next step, into stage `stage`.
  __device__ void next(int stage) {
    if (tile < tiles) {
      const std::uint32_t to = queue + static_cast<std::uint32_t>(stage * kStageBytes);
      copy_async(to, low + chunk * kChunkBytes);
      copy_async(to + kStageBytes / 2, high + chunk * kChunkBytes);
      if (++chunk == end) {
        chunk = begin;
        if (++unit == kUnits) unit = 0, tile += stride;
        aim();
      }
    }
    commit_copies();
  }
};

// Sums of one warp over its chunks, for the units of the current tile. `x` is this lane's place in
// the block's first chunk.
template <int kN, class Output>
__device__ inline void multiply_tile(float (&acc)[kUnits][kN / 8][4], Feed<kN, Output>& feed,
                                     int& stage, std::uint32_t x) {
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[u][j][i] = 0.0f;
    }
    std::uint32_t place = x;
#pragma unroll 1
    for (int chunk = feed.begin; chunk < feed.end; ++chunk, place += kN / 8 * 512) {
      uint4 b[kN / 8];
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) b[j] = load_shared(place + j * 512);
      wait_copies<kStages<kN> - 1>();
      const std::uint32_t from = feed.queue + static_cast<std::uint32_t>(stage * kStageBytes);
      const uint4 low = load_shared(from), high = load_shared(from + kStageBytes / 2);
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        multiply_add(acc[u][j], low.x, high.x, low.y, high.y, b[j].x, b[j].y);
        multiply_add(acc[u][j], low.z, high.z, low.w, high.w, b[j].z, b[j].w);
      }
      feed.next(stage);
      if (++stage == kStages<kN>) stage = 0;
    }
  }
}

template <int kN>
__device__ inline void store_sums(float* sums, const float (&acc)[kUnits][kN / 8][4]) {
  constexpr int kPitch = Layout<kN>::kPitch;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* mine = sums + static_cast<int>(threadIdx.x) / 32 * kN * kPitch + lane / 4;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      float* at = mine + (j * 8 + lane % 4 * 2) * kPitch + u * 16;
      at[0] = acc[u][j][0];
      at[kPitch] = acc[u][j][1];
      at[8] = acc[u][j][2];
      at[kPitch + 8] = acc[u][j][3];
    }
  }
}

// Adds the warps' sums and sends each row's to the block that owns the row.
// inbox [blocks][rows of a share][kTile], the same place in every block.
template <int kN>
__device__ inline void send_sums(const float* sums, float* inbox, int rows, unsigned rank,
                                 int share) {
  for (int e = static_cast<int>(threadIdx.x); e < rows * kTile; e += kThreads) {
    const int n = e / kTile, o = e % kTile;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += sums[(w * kN + n) * Layout<kN>::kPitch + o];
    const int owner = n / share;
    store_cluster(inbox + (static_cast<int>(rank) * share + n - owner * share) * kTile + o,
                  static_cast<unsigned>(owner), sum);
  }
}

template <int kN, class Input, class Output>
__global__ void __launch_bounds__(kThreads, kN <= 16 ? 2 : 1)
    stream_kernel(const __grid_constant__ StreamWeight weight, const __grid_constant__ Input input,
                  const __grid_constant__ Output output, const Layout<kN> layout) {
  extern __shared__ __align__(128) unsigned char memory[];
  const unsigned rank = cluster_rank(), blocks = cluster_size();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = weight.inputs / kChunk, parts = static_cast<int>(blocks) * kWarps;
  const int part = static_cast<int>(rank) * kWarps + warp, rows = input.rows.rows;
  const int first = chunks * static_cast<int>(rank) / static_cast<int>(blocks);
  const int count = chunks * static_cast<int>(rank + 1) / static_cast<int>(blocks) - first;
  const std::uint32_t x = shared_address(memory);
  Feed<kN, Output> feed{output,
                        reinterpret_cast<const char*>(weight.data),
                        2 * std::int64_t{weight.inputs},
                        chunks * part / parts,
                        chunks * (part + 1) / parts,
                        static_cast<int>(blockIdx.x / blocks),
                        (output.units() + kUnits - 1) / kUnits,
                        static_cast<int>(gridDim.x / blocks),
                        x + layout.queue() + threadIdx.x * 16};
  const int tiles = feed.tiles, stride = feed.stride, first_tile = feed.tile;
  feed.start();
#pragma unroll 1
  for (int s = 0; s < kStages<kN>; ++s) feed.next(s);
  grid_launch_next();
  clear_rows<kN>(x, rows, 4 * count);
  cluster_arrive();  // every block has started: its shared memory may be written
  grid_wait();
  cluster_wait();

  auto* squares = reinterpret_cast<float*>(memory + layout.squares());
  float* own_squares = squares + kMaxCluster * kN;
  const auto ahead = output.ahead(rows);
  input.template stage<kN>(x, own_squares, weight.inputs, 4 * first, 4 * count);
  __syncthreads();
  if constexpr (Input::kNorm) {
    for (unsigned e = threadIdx.x; e < blocks * static_cast<unsigned>(rows); e += kThreads) {
      const unsigned n = e / blocks;
      store_cluster(squares + rank * kN + n, e % blocks, own_squares[n]);
    }
  }

  auto* sums = reinterpret_cast<float*>(memory + layout.sums());
  auto* inbox = reinterpret_cast<float*>(memory + layout.inbox());
  unsigned char* tables = memory + layout.tables();
  const int share = kN / static_cast<int>(blocks);
  const auto finish = [&](int tile, const float* from) {
    for (int e = static_cast<int>(threadIdx.x); e < share * kUnits * 8; e += kThreads) {
      const int local = e / (kUnits * 8), u = e / 8 % kUnits, g = e % 8;
      const int n = static_cast<int>(rank) * share + local, unit = tile * kUnits + u;
      if (n >= rows) break;
      float low = 0.0f, high = 0.0f;
      for (unsigned b = 0; b < blocks; ++b) {
        const float* at = from + (static_cast<int>(b) * share + local) * kTile + u * 16 + g;
        low += at[0], high += at[8];
      }
      const float scale = input.scale(squares + n, kN, blocks, weight.inputs);
      output.write(tables, rows, unit, g, n, low * scale, high * scale);
    }
  };

  const std::uint32_t own_x =
      x + static_cast<std::uint32_t>((feed.begin - first) * (kN / 8) * 512 + lane * 16);
  int stage = 0, buffer = 0;
  for (int tile = first_tile; tile < tiles; tile += stride, buffer ^= kN * kTile) {
    float acc[kUnits][kN / 8][4];
    multiply_tile<kN>(acc, feed, stage, own_x);
    if (tile == first_tile) {
      output.prepare(tables, ahead, rows);
    } else {
      cluster_wait();
    }
    store_sums<kN>(sums, acc);
    __syncthreads();
    if (tile != first_tile) finish(tile - stride, inbox + (buffer ^ (kN * kTile)));
    send_sums<kN>(sums, inbox + buffer, rows, rank, share);
    cluster_arrive();
  }
  cluster_wait();
  const int last = first_tile + (tiles - 1 - first_tile) / stride * stride;
  finish(last, inbox + (buffer ^ (kN * kTile)));
}

}  // namespace higgs_rt::stream
