// The weight-streaming product.
//
// A block of 8 warps belongs to a cluster that shares the inputs of its outputs. It walks over
// tiles of 16 outputs; every warp has a range of the inputs, the same in all tiles. Weights come by
// asynchronous copies into a queue in shared memory that each warp has for itself, so that nothing
// but the warp has to be synchronised and the copies run ahead over the ends of tiles. The first of
// them are issued before the kernel waits for the kernels ahead of it. After a tile the warps' sums
// are added in order, each block sends its sums for a share of the rows to the block that owns the
// share, and that block writes the result while the next tile is under way.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/read_ahead.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/stream_outputs.cuh"
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
  __host__ __device__ int queue() const { return chunks * (kN / 8) * 1024; }
  __host__ __device__ int sums() const { return queue() + kStages * kStageBytes; }
  __host__ __device__ int inbox() const { return sums() + kRanges * kN * kPitch * 4; }
  __host__ __device__ int squares() const { return inbox() + kInboxes * kN * kTile * 4; }
  __host__ __device__ int arrivals() const { return squares() + (kMaxCluster + 1) * kN * 4; }
  __host__ __device__ int tables() const { return arrivals() + kInboxes * 8; }
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

// sums [kRanges][kN][kPitch].
template <int kN>
__device__ inline void store_sums(float* sums, const float (&acc)[2][kN / 8][4]) {
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
// A share without rows sends 16 bytes all the same, so that what a block has received tells it how
// far the others are: it sends tile i when it has received tile i - 2 from all, who had then read
// tile i - 4, the last one in the same inbox.
template <int kN>
__device__ inline void send_sums(const float* sums, float* inbox, Arrival* arrival, unsigned rank,
                                 int rows, int share) {
  constexpr int kPacks = kTile / 4;
  // From the last thread on: the first ones write results.
  for (int e = kThreads - 1 - static_cast<int>(threadIdx.x); e < kN * kPacks; e += kThreads) {
    const int n = e / kPacks, o = e % kPacks * 4;
    if (n >= rows && (n % share != 0 || o != 0)) continue;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int r = 0; r < kRanges; ++r) {
      const auto* at = sums + (r * kN + n) * kPitch + o;
      const float4 one = *reinterpret_cast<const float4*>(at);
      sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
    }
    const int owner = n / share;
    float* place = inbox + (static_cast<int>(rank) * share + n - owner * share) * kTile + o;
    send(reinterpret_cast<float4*>(place), arrival, static_cast<unsigned>(owner), sum);
  }
}

// Adds what the blocks have sent for this block's share of the rows and writes the results of a
// tile. squares [blocks][kN] as NormInput::scale() takes them, tables as Output::prepare() made
// them.
template <int kN, class Input, class Output>
__device__ inline void write_results(const Input& input, const Output& output, int tile,
                                     const float* inbox, const float* squares,
                                     const unsigned char* tables, unsigned rank, unsigned blocks,
                                     int inputs) {
  const int rows = input.rows.rows, share = kN / static_cast<int>(blocks);
  for (int e = static_cast<int>(threadIdx.x); e < share * kUnits * 8; e += kThreads) {
    const int local = e / (kUnits * 8), u = e / 8 % kUnits, g = e % 8;
    const int n = static_cast<int>(rank) * share + local, unit = tile * kUnits + u;
    if (n >= rows) break;
    float low = 0.0f, high = 0.0f;
    for (unsigned b = 0; b < blocks; ++b) {
      const float* at = inbox + (static_cast<int>(b) * share + local) * kTile + u * 16 + g;
      low += at[0], high += at[8];
    }
    const float scale = input.scale(squares + n, kN, blocks, inputs);
    output.write(tables, rows, unit, g, n, low * scale, high * scale);
  }
}

template <int kN, int kStages, class Input, class Output>
__global__ void __launch_bounds__(kThreads, kN == 8 ? 2 : 1)
    stream_kernel(const __grid_constant__ StreamWeight weight, const __grid_constant__ Input input,
                  const __grid_constant__ Output output, const Layout<kN, kStages> layout) {
  extern __shared__ __align__(128) unsigned char memory[];
  const unsigned rank = cluster_rank(), blocks = cluster_size();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = weight.inputs / kChunk, parts = static_cast<int>(blocks) * kRanges;
  const int part = static_cast<int>(rank) * kRanges + warp / kUnits, rows = input.rows.rows;
  const int first = chunks * static_cast<int>(rank) / static_cast<int>(blocks);
  const int count = chunks * static_cast<int>(rank + 1) / static_cast<int>(blocks) - first;
  const std::uint32_t x = shared_address(memory);
  Feed<kStages, Output> feed{
      output,
      reinterpret_cast<const char*>(weight.data),
      2 * std::int64_t{weight.inputs},
      chunks * part / parts,
      chunks * (part + 1) / parts,
      static_cast<int>(blockIdx.x / blocks),
      (output.units() + kUnits - 1) / kUnits,
      static_cast<int>(gridDim.x / blocks),
      x + static_cast<std::uint32_t>(layout.queue() + warp * 16 * kChunkBytes)};
  const int tiles = feed.tiles, stride = feed.stride, first_tile = feed.tile;
  auto* arrivals = reinterpret_cast<Arrival*>(memory + layout.arrivals());
  auto* squares = reinterpret_cast<float*>(memory + layout.squares());
  float* own_squares = squares + kMaxCluster * kN;
  const int share = kN / static_cast<int>(blocks);  // rows whose results this block writes
  const int own_rows = min(rows - static_cast<int>(rank) * share, share);
  const int sum_bytes = static_cast<int>(blocks) * (own_rows > 0 ? own_rows * kTile * 4 : 16);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kInboxes; ++i) {
      init_arrival(arrivals + i);
      const int squares_bytes = Input::kNorm && i == 0 ? static_cast<int>(blocks) * kN * 4 : 0;
      expect_arrival(arrivals + i, sum_bytes + squares_bytes);
    }
  }
  if (threadIdx.x < kN) own_squares[threadIdx.x] = 0.0f;
  feed.start();
#pragma unroll 1
  for (int s = 0; s < kStages; ++s) feed.next();
  grid_launch_next();
  clear_rows<kN>(x, rows, kPieces * count);
  cluster_start();
  grid_wait();

  const auto ahead = output.ahead(rows);
  input.template stage<kN>(x, own_squares, weight.inputs, kPieces * first, kPieces * count);
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
  const std::uint32_t own_x =
      x + static_cast<std::uint32_t>((feed.begin - first) * (kN / 8) * 1024 + lane * 16);
  int tile = first_tile;
  unsigned sent = 0;  // tiles
  // Receives the sums of the tile before `tile` and writes its results.
  const auto receive = [&](unsigned index) {
    block_arrival();
    if (static_cast<int>(threadIdx.x) >= share * kUnits * 8) return;
    Arrival* arrival = arrivals + index % kInboxes;
    wait_arrival(arrival, index / kInboxes);
    if (threadIdx.x == 0) expect_arrival(arrival, sum_bytes);
    write_results<kN>(input, output, tile - stride, inbox + index % kInboxes * kN * kTile, squares,
                      tables, rank, blocks, weight.inputs);
  };
  const unsigned all_warps = gridDim.x * kWarps;
  const int ask_at = max(tiles - weight.ahead.tiles * stride, first_tile);
  for (; tile < tiles; tile += stride, ++sent) {
    if (tile >= ask_at && tile - stride < ask_at) {
      read_ahead(weight.ahead, blockIdx.x * kWarps + static_cast<unsigned>(warp), all_warps);
    }
    float acc[2][kN / 8][4];
    multiply_tile<kN>(acc, feed, own_x);
    if (sent == 0) output.prepare(tables, ahead, rows);
    __syncthreads();  // the sums before these have been read
    store_sums<kN>(sums, acc);
    __syncthreads();
    send_sums<kN>(sums, inbox + sent % kInboxes * kN * kTile, arrivals + sent % kInboxes, rank,
                  rows, share);
    if (sent != 0) receive(sent - 1);
  }
  receive(sent - 1);
}

}  // namespace higgs_rt::stream
