// What the kernel of half_block.cu is made of. A block of threads makes kKept rows of the items
// laid end to end, from kHalo more at each end. Rows are kept by phase of the up-sampling: row
// index * kRatio + phase, so that a product over 64 rows of one phase reads, for any tap, rows that
// follow each other. The residual stream stays in registers, as the sums of the products.
#pragma once

#include "ops/cuda/kernels/half_block.h"
#include "ops/cuda/kernels/half_launch.cuh"
#include "ops/cuda/kernels/half_outputs.cuh"
#include "ops/cuda/kernels/half_wgmma.cuh"

namespace higgs_rt {

constexpr int kUnits = 3, kTaps = kLastTaps;

__host__ __device__ constexpr int rounded(int value, int to) { return (value + to - 1) / to * to; }

// kGroups groups of four warps, each with kTiles tiles of 64 rows of one phase. Three units reach
// 3 (1 + 3 + 9) rows to each side, the last convolution 3 more.
template <int kInOf, int kOutOf, int kRatioOf, int kGroupsOf, int kTilesOf, bool kLastOf>
struct BlockShape {
  static constexpr int kIn = kInOf, kOut = kOutOf, kRatio = kRatioOf, kGroups = kGroupsOf;
  static constexpr int kTiles = kTilesOf, kThreads = 128 * kGroups;
  static constexpr bool kLast = kLastOf;
  static constexpr int kSums = kOut == 32 ? kTiles : 1;  // tiles under way, as registers allow
  static_assert(kTiles % kRatio == 0);
  static constexpr int kSpan = kGroups * kTiles / kRatio * 64;  // rows of a phase
  static constexpr int kHalo = rounded(kLast ? 42 : 39, kRatio);
  static constexpr int kKept = kSpan * kRatio - 2 * kHalo;
  static constexpr int kGuard = (27 + kRatio - 1) / kRatio;      // rows of a phase beyond each end
  static constexpr int kPlane = rounded(kSpan + 2 * kGuard, 8);  // keeps HalfTile::key()
  static constexpr int kInRows = rounded(kSpan + 2, 8);
  static constexpr int kChunk = kIn < 64 ? kIn : 64;  // channels of a tile of the input
  using Times = HalfTile<kOut>;
  using Inputs = HalfTile<kChunk>;

  // Bytes of the stages' weights, one after another: up-sampling, units, the end.
  static constexpr int kUpFactors = kRatio * 2 * kIn * kOut * 2, kUp = kUpFactors + kOut * 4;
  static constexpr int kWide = kTaps * kOut * kOut * 2, kPoint = kOut * kOut * 2;
  static constexpr int kUnit = kWide + kPoint + 6 * kOut * 4;
  static constexpr int kLastFactors = kTaps * kOut * 8 * 2;  // eight columns, two of them in use
  static constexpr int kEnd = 2 * kOut * 4 + (kLast ? kLastFactors + 16 : 0);
  // Shared memory: the rows, with the input in their place at first; then weights. Those of narrow
  // blocks are all there at once, the first in the place of rows too; else there are two buffers.
  static constexpr bool kResident = kOut == 32;
  static constexpr int kInput = kInRows * kIn * 2;
  static constexpr int kRows = rounded(kRatio * kPlane * kOut * 2, 128);
  static constexpr int kFront = rounded(kResident && kInput + kUp > kRows ? kInput + kUp
                                        : kRows > kInput                  ? kRows
                                                                          : kInput,
                                        128);
  static constexpr int kBuffer = rounded(kUp > kUnit ? kUp : kUnit, 128);
  static constexpr int kWeights = kResident ? kUnits * kUnit : 2 * kBuffer;
  static constexpr int kBarriers = kFront + kWeights + kEnd, kStages = kUnits + 2;
  static constexpr int kShared = kBarriers + kStages * 8;

  static __host__ __device__ constexpr int stage_at(int stage) {  // in shared memory
    if (stage > kUnits) return kFront + kWeights;
    if (!kResident) return kFront + stage % 2 * kBuffer;
    return stage == 0 ? kInput : kFront + (stage - 1) * kUnit;
  }
  static __device__ int stage_bytes(int stage) {
    return stage == 0 ? kUp : stage > kUnits ? kEnd : kUnit;
  }
  static __device__ int stage_from(int stage) {  // in the weights
    return stage == 0 ? 0 : kUp + (stage - 1) * kUnit;
  }
};

// The tiles of the calling warp.
template <class S>
struct BlockPlace {
  int begin;  // of index 0 of phase 0, in the rows made of all items; may be negative
  int total;  // rows made of all items
  int warp, lane;

  static __device__ constexpr int phase(int m) { return m % S::kRatio; }
  // Index of the group's first row of its first tile, and of tile m from there on.
  __device__ int index() const { return warp / 4 * (S::kTiles / S::kRatio) * 64; }
  static __device__ constexpr int index(int m) { return m / S::kRatio * 64; }
  // This thread's row h (0 or 1) of tile m, from index 0 of phase 0 on.
  __device__ int row(int m, int h) const {
    return (index() + index(m) + warp % 4 * 16 + h * 8 + lane / 4) * S::kRatio + phase(m);
  }
};

// One bit for each of this thread's rows: it is of an utterance.
template <class S>
__device__ unsigned existing_rows(const HalfBlock& block, const BlockPlace<S>& place) {
  unsigned bits = 0;
  const Divider made(block.rows * S::kRatio);
#pragma unroll
  for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = place.begin + place.row(m, h);
      if (at < 0 || at >= place.total) continue;
      const int item = made.quotient(at), when = block.out_begin + at - item * made.by;
      const int2 frames = block.batch.valid[item];
      const bool exists = when >= frames.x * block.rate && when < frames.y * block.rate;
      bits |= (exists ? 1u : 0u) << (2 * m + h);
    }
  }
  return bits;
}

// The input's rows, from one before index 0 on.
template <class S>
__device__ void load_inputs(const HalfBlock& block, const BlockPlace<S>& place,
                            std::uint32_t shared) {
  const int first = place.begin / S::kRatio - 1, total = place.total / S::kRatio;
  constexpr int kPieces = S::kIn / 8;
  const Divider rows(block.rows);
  for (int i = threadIdx.x; i < S::kInRows * kPieces; i += S::kThreads) {
    const int row = i / kPieces, piece = i % kPieces, time = first + row;
    const bool exists = time >= 0 && time < total;
    const int item = exists ? rows.quotient(time) : 0;
    const int from = exists ? item * block.in_rows + time - item * block.rows + block.in_begin : 0;
    const std::uint32_t tile = shared + piece / S::Inputs::kPieces * (S::kInRows * S::kChunk * 2);
    copy_async(tile + S::Inputs::offset(row, piece % S::Inputs::kPieces),
               block.x + static_cast<std::size_t>(from) * S::kIn + piece * 8, exists);
  }
  copy_async_commit();
}

// Rows of neighbouring taps of the transposed convolution.
struct NextRows {
  int row;
  __device__ int next() { return row++; }
};

// Rows that are `dilation` rows made apart, from kTaps / 2 of them before index `index` of `phase`.
template <class S>
struct DilatedRows {
  int phase, row, dilation;

  __device__ DilatedRows(int of_phase, int index, int of_dilation) : dilation(of_dilation) {
    constexpr int kBack = 27 / S::kRatio + 1;  // keeps the quotient positive
    const int at = of_phase - kTaps / 2 * dilation + kBack * S::kRatio;
    phase = at % S::kRatio;
    row = phase * S::kPlane + at / S::kRatio - kBack + S::kGuard + index;
  }
  __device__ int next() {
    const int now = row;
    phase += dilation % S::kRatio;
    row += dilation % S::kRatio * S::kPlane + dilation / S::kRatio;
    if (phase >= S::kRatio) {
      phase -= S::kRatio;
      row += 1 - S::kRatio * S::kPlane;
    }
    return now;
  }
};

// sum += x w, taps one after another, over kChannels channels in tiles of kWidth, kTileBytes apart;
// rows.next() is the first row of the tile for the next tap. Goes on until a group_wait().
template <int kWidth, int kTapsOf, int kChannels, int kTileBytes, int kTilesN, class Rows>
__device__ void add_products(std::uint32_t x, std::uint32_t w, Rows rows,
                             float (&sum)[kTilesN][4]) {
  constexpr int kSteps = kChannels / 16;
  x = factor_address(x);
  w = factor_address(w);
  asm volatile("" : "+r"(x), "+r"(w));  // or the addresses of all products would be kept at once
  group_begin(sum);
#pragma unroll
  for (int tap = 0; tap < kTapsOf; ++tap) {
    const int row = rows.next() * kWidth * 2;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const int at = row + k * 16 % kWidth * 2 + k * 16 / kWidth * kTileBytes;
      const int factors = (tap * kSteps + k) * 2 * kTilesN * 8 * 16;
      multiply_group(tile_factors<kWidth>(x + at / 16),
                     group_factors_at(w + factors / 16, kTilesN * 8), sum);
    }
  }
  end_products();
}

// sum += bias, or = bias: of this thread's outputs.
template <bool kAdd, int kTilesN>
__device__ void take_bias(const float* bias, float (&sum)[kTilesN][4]) {
#pragma unroll
  for (int g = 0; g < kTilesN / 2; ++g) {
    const float4 b = load4(bias + g * 16 + threadIdx.x % 4 * 4);
    const float values[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& at = sum[2 * g + i / 4][i % 4];
      at = kAdd ? at + values[i / 4 * 2 + i % 2] : values[i / 4 * 2 + i % 2];
    }
  }
}

template <int kTilesN>
__device__ void keep_existing(unsigned bits, float (&sum)[kTilesN][4]) {
#pragma unroll
  for (int n = 0; n < kTilesN; ++n) {
    if (!(bits & 1)) sum[n][0] = sum[n][1] = 0;
    if (!(bits & 2)) sum[n][2] = sum[n][3] = 0;
  }
}

}  // namespace higgs_rt
