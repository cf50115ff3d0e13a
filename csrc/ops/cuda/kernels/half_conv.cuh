// What the convolution kernels on the tensor cores share: where a block is, how its tiles come to
// shared memory, and what becomes of its sums. A block takes kBlockM times of the items laid end to
// end and kBlockN outputs; it loads the times of one chunk of channels once and shifts them by rows
// from tap to tap.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/half_codec.h"
#include "ops/cuda/kernels/half_mma.cuh"

namespace higgs_rt {

constexpr int kHalfThreads = 128;

// Sizes of a kernel. kStages: steps whose weights are under way or in use. kBlockM times, of which
// tiles of 16 go to each warp.
template <int kTapsOf, int kChunkOf, int kBlockNOf, int kStagesOf>
struct HalfSizes {
  static constexpr int kTaps = kTapsOf, kChunk = kChunkOf, kBlockN = kBlockNOf, kStages = kStagesOf;
  static constexpr int kPieces = kChunk / 8;  // 16 bytes each, of a row
  static constexpr int kBlockM = kBlockN == 128 ? 128 : 256;
  // Copies run kStages - 1 steps ahead of the products.
  static constexpr int kBuffers = (kStages - 1 + kTaps - 1) / kTaps + 1;

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
  static constexpr bool kAsync = false;  // multiply() goes on until finish()

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
  // Before the barrier behind which multiply() reads shared memory.
  static __device__ void publish() {}
  // sum += rows `row`.. of tile x, which has `rows` of them, times the weights w.
  static __device__ void multiply(std::uint32_t x, int row, int, std::uint32_t w,
                                  float (&sum)[kTilesM][kTilesN][4]) {
    multiply_tiles<Sizes::kChunk>(x, row + first_row(0), w, first_output(), sum);
  }
  static __device__ void finish() {}
};

template <class S>
std::size_t half_shared_bytes(const HalfConv& conv) {
  const int tiles = S::buffers(conv.channels / S::kChunk);
  return static_cast<std::size_t>(tiles * S::tile_bytes(S::tile_rows(conv.dilation)) +
                                  S::kStages * S::tile_bytes(S::kBlockN));
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

template <class S>
__device__ void load_times(const HalfConv& conv, const HalfPlace& place, int chunk) {
  const int rows = S::tile_rows(conv.dilation);
  const std::uint32_t buffer = place.x + chunk % S::kBuffers * S::tile_bytes(rows);
  const bool dense = conv.in_rows == conv.rows;
  for (int i = threadIdx.x; i < rows * S::kPieces; i += kHalfThreads) {
    const int row = i / S::kPieces, piece = i % S::kPieces;
    const int time = place.first + place.shift + row;
    const bool exists = time >= 0 && time < place.total;
    int from = exists ? time : 0;
    if (!dense) from = from / conv.rows * conv.in_rows + from % conv.rows + conv.in_begin;
    const __half* source =
        conv.x + static_cast<std::size_t>(from) * conv.channels + chunk * S::kChunk + piece * 8;
    copy_async(buffer + S::offset(row, piece, rows), source, exists);
  }
}

// The weights of step `step`, S::kChunk channels by S::kBlockN outputs; `source` is its first
// number.
template <class S>
__device__ void load_weights(const HalfPlace& place, const __half* source, int step) {
  const std::uint32_t buffer = place.weights + step % S::kStages * S::tile_bytes(S::kBlockN);
#pragma unroll
  for (int i = threadIdx.x; i < S::kBlockN * S::kPieces; i += kHalfThreads) {
    copy_async(buffer + S::weight_offset(i), source + i * 8, true);
  }
}

// Step: a chunk of channels and a tap. The times of a chunk come with its first tap.
template <class S>
__device__ void load_step(const HalfConv& conv, const HalfPlace& place, int step) {
  const int steps = conv.channels / S::kChunk * S::kTaps;
  if (step % S::kTaps == 0) load_times<S>(conv, place, step / S::kTaps);
  const std::size_t block = static_cast<std::size_t>(place.phase) * steps + step;
  load_weights<S>(place, conv.weight + (block * conv.outputs + place.output) * S::kChunk, step);
}

__device__ inline float snake(float x, float alpha, float scale) {
  const float s = __sinf(alpha * x);
  return fmaf(s * s, scale, x);
}

__device__ inline float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ inline float4 add4(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// fp16(snake(v)) of four channels from `channel` on; without a snake fp16(v).
__device__ inline uint2 activate(const HalfSnake& of, int channel, float4 v) {
  if (of.alpha != nullptr) {
    const float4 alpha = load4(of.alpha + channel), scale = load4(of.scale + channel);
    v = {snake(v.x, alpha.x, scale.x), snake(v.y, alpha.y, scale.y), snake(v.z, alpha.z, scale.z),
         snake(v.w, alpha.w, scale.w)};
  }
  const __half2 halves[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
  return *reinterpret_cast<const uint2*>(halves);
}

// One row of one warp's tile: this thread's channels, four in each of kGroups groups of 16 from
// `channel` on.
template <class S>
struct OutputRow {
  bool exists = false, valid = false;
  std::size_t at = 0;
  static constexpr int kGroups = S::kTilesN / 2 < 4 ? S::kTilesN / 2 : 4;
  float4 residual[kGroups];

  __device__ void load(const HalfConv& conv, const HalfPlace& place, int row, int channel) {
    const int time = place.first + row;
    exists = time < place.total;
    if (!exists) return;
    const int item = time / conv.rows;
    const int when = conv.out_begin + (time - item * conv.rows) * conv.phases + place.phase;
    const int2 frames = conv.batch.valid[item];
    valid = when >= frames.x * conv.rate && when < frames.y * conv.rate;
    at = (static_cast<std::size_t>(time) * conv.phases + place.phase) * conv.outputs + channel;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      residual[g] = conv.residual == nullptr ? float4{} : load4(conv.residual + at + g * 16);
    }
  }

  __device__ void store(const HalfConv& conv, int channel, int g, float4 v) const {
    if (!exists) return;
    v = add4(add4(v, load4(conv.bias + channel + g * 16)), residual[g]);
    if (!valid) v = float4{};
    if (conv.out != nullptr) *reinterpret_cast<float4*>(conv.out + at + g * 16) = v;
    *reinterpret_cast<uint2*>(conv.activated + at + g * 16) =
        activate(conv.snake, channel + g * 16, v);
  }
};

// This thread's sums of row h (0 or 1) of two neighbouring products: four consecutive outputs.
template <int kTilesN>
__device__ float4 four_sums(const float (&sum)[kTilesN][4], int g, int h) {
  return {sum[2 * g][2 * h], sum[2 * g][2 * h + 1], sum[2 * g + 1][2 * h],
          sum[2 * g + 1][2 * h + 1]};
}

template <class S>
__device__ void write_tile(const HalfConv& conv, const HalfPlace& place,
                           const float (&sum)[S::kTilesM][S::kTilesN][4]) {
  constexpr int kGroups = OutputRow<S>::kGroups;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < S::kTilesM; ++m) {
#pragma unroll
    for (int first = 0; first < S::kTilesN / 2; first += kGroups) {
      const int channel = place.output + S::first_output() + first * 16 + lane % 4 * 4;
      OutputRow<S> rows[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        rows[h].load(conv, place, S::first_row(m) + h * 8 + lane / 4, channel);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          rows[h].store(conv, channel, g, four_sums(sum[m], first + g, h));
        }
      }
    }
  }
}

}  // namespace higgs_rt
