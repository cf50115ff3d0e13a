// The weight-streaming product.
//
// A block of 8 warps belongs to a cluster that shares the inputs of its outputs: of every tile of
// 32 outputs a warp takes 16, and a range of inputs that it keeps for all tiles. Weights come by
// asynchronous copies into a queue in shared memory that each thread has for itself: a thread
// copies the very bytes that it needs as its part of the matrix instruction, so nothing has to be
// synchronised, and the copies run ahead over the ends of tiles. The first of them are issued
// before the kernel waits for the kernels ahead of it. After a tile the warps' sums are added in
// order, each block sends its sums for a share of the rows to the block that owns the share, and
// that block writes the result while the next tile is under way.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/stream_outputs.cuh"
#include "ops/cuda/kernels/stream_parts.cuh"

namespace higgs_rt::stream {

constexpr int kUnits = 2;  // units of 16 outputs in a tile
constexpr int kTile = 16 * kUnits;
constexpr int kRanges = kWarps / kUnits;  // of the inputs of a block, one for each warp of a unit
constexpr int kInboxes = 4;               // see send_sums()
constexpr int kStageBytes = 2 * 16 * kThreads;  // one step of all warps
constexpr int kMaxCluster = 8;
constexpr int kPrefetchTiles = 0;  // that go to the L2 cache before the kernels ahead have finished

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
  __host__ __device__ int inbox() const { return sums() + kRanges * kN * kPitch * 4; }
  __host__ __device__ int squares() const { return inbox() + kInboxes * kN * kTile * 4; }
  __host__ __device__ int arrivals() const { return squares() + (kMaxCluster + 1) * kN * 4; }
  __host__ __device__ int tables() const { return arrivals() + kInboxes * 8; }
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
  std::uint64_t policy = read_once_policy();
  int chunk = 0;
  const char* low = nullptr;
  const char* high = nullptr;

  __device__ void start() {
    chunk = begin;
    if (begin == end) tile = tiles;
    aim();
  }
  __device__ void aim() {
    if (tile >= tiles) return;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int unit = min(tile * kUnits + warp % kUnits, output.units() - 1);
    const char* base = weight + lane % 4 * 16;
    low = base + output.weight_row(unit, lane / 4, 0) * row_bytes;
    high = base + output.weight_row(unit, lane / 4, 1) * row_bytes;
  }
  // Brings this warp's weights of the tile `ahead` tiles after the first into the L2 cache.
  __device__ void prefetch(int ahead) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int later = tile + ahead * stride;
    if (later >= tiles || lane >= 16) return;
    const int unit = min(later * kUnits + warp % kUnits, output.units() - 1);
    const char* row = weight + output.weight_row(unit, lane % 8, lane / 8) * row_bytes;
    prefetch_l2(row + begin * kChunkBytes, (end - begin) * kChunkBytes);
  }
  // Asks for the next chunk, into stage `stage`.
  __device__ void next(int stage) {
    if (tile < tiles) {
      const std::uint32_t to = queue + static_cast<std::uint32_t>(stage * kStageBytes);
      copy_async(to, low + chunk * kChunkBytes, policy);
      copy_async(to + kStageBytes / 2, high + chunk * kChunkBytes, policy);
      if (++chunk == end) {
        chunk = begin;
        tile += stride;
        aim();
      }
    }
    commit_copies();
  }
};

// Sums of the next kChunks chunks of a warp; each has accumulators of its own, for no instruction
// to wait for the one before.
template <int kChunks, int kN, class Output>
__device__ inline void multiply_chunks(float (&acc)[2][kN / 8][4], Feed<kN, Output>& feed,
                                       int& stage, std::uint32_t x) {
  uint4 b[kChunks][kN / 8], low[kChunks], high[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) b[c][j] = load_shared(x + (c * (kN / 8) + j) * 512);
  }
  wait_copies<kStages<kN> - kChunks>();
  int stages[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    stages[c] = stage;
    const std::uint32_t from = feed.queue + static_cast<std::uint32_t>(stage * kStageBytes);
    low[c] = load_shared(from), high[c] = load_shared(from + kStageBytes / 2);
    if (++stage == kStages<kN>) stage = 0;
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      multiply_add(acc[c][j], low[c].x, high[c].x, low[c].y, high[c].y, b[c][j].x, b[c][j].y);
    }
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      multiply_add(acc[c][j], low[c].z, high[c].z, low[c].w, high[c].w, b[c][j].z, b[c][j].w);
    }
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) feed.next(stages[c]);
}

// Sums of one warp over its chunks. `x` is this lane's place in the first of them.
template <int kN, class Output>
__device__ inline void multiply_tile(float (&acc)[2][kN / 8][4], Feed<kN, Output>& feed, int& stage,
                                     std::uint32_t x) {
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[c][j][i] = 0.0f;
    }
  }
  int chunk = feed.begin;
#pragma unroll 1
  for (; chunk + 1 < feed.end; chunk += 2, x += 2 * (kN / 8) * 512) {
    multiply_chunks<2>(acc, feed, stage, x);
  }
  if (chunk < feed.end) multiply_chunks<1>(acc, feed, stage, x);
}

// sums [kRanges][kN][kPitch].
template <int kN>
__device__ inline void store_sums(float* sums, const float (&acc)[2][kN / 8][4]) {
  constexpr int kPitch = Layout<kN>::kPitch;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  float* mine = sums + warp / kUnits * kN * kPitch + warp % kUnits * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
    float* at = mine + (j * 8 + lane % 4 * 2) * kPitch;
    at[0] = acc[0][j][0] + acc[1][j][0];
    at[kPitch] = acc[0][j][1] + acc[1][j][1];
    at[8] = acc[0][j][2] + acc[1][j][2];
    at[kPitch + 8] = acc[0][j][3] + acc[1][j][3];
  }
}

// Adds the ranges' sums and sends each row's to the block that owns the row.
// inbox [blocks][rows of a share][kTile], the same place in every block, one of kInboxes in turn.
//
// Rows that do not exist are sent too, so that what a block has received tells it how far the
// others are: it sends tile i when it has received tile i - 2 from all, who had then read tile
// i - 4, the last one in the same inbox.
template <int kN>
__device__ inline void send_sums(const float* sums, float* inbox, Arrival* arrival, unsigned rank,
                                 int share) {
  constexpr int kPacks = kTile / 4;
  // From the last thread on: the first ones write results.
  for (int e = kThreads - 1 - static_cast<int>(threadIdx.x); e < kN * kPacks; e += kThreads) {
    const int n = e / kPacks, o = e % kPacks * 4;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int r = 0; r < kRanges; ++r) {
      const auto* at = sums + (r * kN + n) * Layout<kN>::kPitch + o;
      const float4 one = *reinterpret_cast<const float4*>(at);
      sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
    }
    const int owner = n / share;
    float* place = inbox + (static_cast<int>(rank) * share + n - owner * share) * kTile + o;
    send(reinterpret_cast<float4*>(place), arrival, static_cast<unsigned>(owner), sum);
  }
}

template <int kN, class Input, class Output>
__global__ void __launch_bounds__(kThreads, kN <= 16 ? 2 : 1)
    stream_kernel(const __grid_constant__ StreamWeight weight, const __grid_constant__ Input input,
                  const __grid_constant__ Output output, const Layout<kN> layout) {
  extern __shared__ __align__(128) unsigned char memory[];
  const unsigned rank = cluster_rank(), blocks = cluster_size();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = weight.inputs / kChunk, parts = static_cast<int>(blocks) * kRanges;
  const int part = static_cast<int>(rank) * kRanges + warp / kUnits, rows = input.rows.rows;
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
  auto* arrivals = reinterpret_cast<Arrival*>(memory + layout.arrivals());
  auto* squares = reinterpret_cast<float*>(memory + layout.squares());
  float* own_squares = squares + kMaxCluster * kN;
  constexpr int kSumBytes = kN * kTile * 4;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kInboxes; ++i) {
      init_arrival(arrivals + i);
      const int squares_bytes = Input::kNorm && i == 0 ? static_cast<int>(blocks) * kN * 4 : 0;
      expect_arrival(arrivals + i, kSumBytes + squares_bytes);
    }
  }
  if (threadIdx.x < kN) own_squares[threadIdx.x] = 0.0f;
  feed.start();
  for (int i = 1; i <= kPrefetchTiles; ++i) feed.prefetch(i);
#pragma unroll 1
  for (int s = 0; s < kStages<kN>; ++s) feed.next(s);
  grid_launch_next();
  clear_rows<kN>(x, rows, 4 * count);
  cluster_start();
  grid_wait();

  const auto ahead = output.ahead(rows);
  input.template stage<kN>(x, own_squares, weight.inputs, 4 * first, 4 * count);
  __syncthreads();
  if constexpr (Input::kNorm) {
    for (unsigned e = threadIdx.x; e < blocks * kN; e += kThreads) {
      const unsigned n = e / blocks;
      send(squares + rank * kN + n, arrivals, e % blocks, own_squares[n]);
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
  int stage = 0, tile = first_tile;
  unsigned sent = 0;  // tiles
  // Receives the sums of the tile before `tile` and writes its results.
  const auto receive = [&](unsigned index) {
    block_arrival();
    if (static_cast<int>(threadIdx.x) >= share * kUnits * 8) return;
    Arrival* arrival = arrivals + index % kInboxes;
    wait_arrival(arrival, index / kInboxes);
    if (threadIdx.x == 0) expect_arrival(arrival, kSumBytes);
    finish(tile - stride, inbox + index % kInboxes * kN * kTile);
  };
  for (; tile < tiles; tile += stride, ++sent) {
    float acc[2][kN / 8][4];
    multiply_tile<kN>(acc, feed, stage, own_x);
    if (sent == 0) output.prepare(tables, ahead, rows);
    __syncthreads();  // the sums before these have been read
    store_sums<kN>(sums, acc);
    __syncthreads();
    send_sums<kN>(sums, inbox + sent % kInboxes * kN * kTile, arrivals + sent % kInboxes, rank,
                  share);
    if (sent != 0) receive(sent - 1);
  }
  receive(sent - 1);
}

}  // namespace higgs_rt::stream
