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
#include "ops/cuda/kernels/stream_feed.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/stream_outputs.cuh"
#include "ops/cuda/kernels/stream_parts.cuh"

namespace higgs_rt::stream {

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
  const Part own{x, x + static_cast<std::uint32_t>(layout.norms()), weight.inputs, kPieces * first,
                 kPieces * count};
  input.open(own);
  feed.start();
#pragma unroll 1
  for (int s = 0; s < kStages; ++s) feed.next();
  grid_launch_next();
  clear_rows<kN>(x, rows, kPieces * count);
  cluster_start();
  grid_wait();

  const auto ahead = output.ahead(rows);
  if constexpr (Input::kNorm) {
    copy_async_wait<kStages>();  // the norms, which were asked for first
    __syncthreads();
  }
  input.template stage<kN>(own, own_squares);
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
  for (; tile < tiles; tile += stride, ++sent) {
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
