// What the kernel of half_block.cu is made of. A block of threads makes kKept rows of the items
// laid end to end, from kHalo more at each end. Rows are kept by phase of the up-sampling: row
// index * kRatio + phase, so that a product over 64 rows of one phase reads, for any tap, rows that
// follow each other. The residual stream stays in registers, as the sums of the products.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/half_block.h"
#include "ops/cuda/kernels/half_conv.cuh"
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
  static_assert(kTiles % kRatio == 0);
  static constexpr int kSpan = kGroups * kTiles / kRatio * 64;  // rows of a phase
  static constexpr int kHalo = rounded(kLast ? 42 : 39, kRatio);
  static constexpr int kKept = kSpan * kRatio - 2 * kHalo;
  static constexpr int kGuard = (27 + kRatio - 1) / kRatio;      // rows of a phase beyond each end
  static constexpr int kPlane = rounded(kSpan + 2 * kGuard, 8);  // keeps HalfTile::key()
  static constexpr int kInRows = kSpan + 2;
  static constexpr int kChunk = kIn < 64 ? kIn : 64;  // channels of a tile of the input
  using Times = HalfTile<kOut>;
  using Inputs = HalfTile<kChunk>;

  // Bytes of the stages' weights, one after another: up-sampling, units, the end.
  static constexpr int kUpFactors = kRatio * 2 * kIn * kOut * 2, kUp = kUpFactors + kOut * 4;
  static constexpr int kWide = kTaps * kOut * kOut * 2, kPoint = kOut * kOut * 2;
  static constexpr int kUnit = kWide + kPoint + 6 * kOut * 4;
  static constexpr int kEnd = (2 * kOut + (kLast ? kTaps * kOut + 4 : 0)) * 4;
  // Shared memory: the rows, with the input in their place at first; then weights. Those of narrow
  // blocks are all there at once, the first in the place of rows too; else there are two buffers.
  static constexpr bool kResident = kOut == 32;
  static constexpr int kInput = rounded(kInRows * kIn * 2, 128);
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
  // Index of the warp's first row of tile m.
  __device__ int index(int m) const {
    return (threadIdx.x / 128 * (S::kTiles / S::kRatio) + m / S::kRatio) * 64 + warp % 4 * 16;
  }
  // This thread's row h (0 or 1) of tile m, from index 0 of phase 0 on.
  __device__ int row(int m, int h) const {
    return (index(m) + h * 8 + lane / 4) * S::kRatio + phase(m);
  }
};

// One bit for each of this thread's rows: it is of an utterance.
template <class S>
__device__ unsigned existing_rows(const HalfBlock& block, const BlockPlace<S>& place) {
  unsigned bits = 0;
  const int made = block.rows * S::kRatio;
#pragma unroll
  for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = place.begin + place.row(m, h);
      if (at < 0 || at >= place.total) continue;
      const int item = at / made, when = block.out_begin + at - item * made;
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
  for (int i = threadIdx.x; i < S::kInRows * kPieces; i += S::kThreads) {
    const int row = i / kPieces, piece = i % kPieces, time = first + row;
    const bool exists = time >= 0 && time < total;
    const int item = exists ? time / block.rows : 0;
    const int from = exists ? item * block.in_rows + time - item * block.rows + block.in_begin : 0;
    const std::uint32_t tile = shared + piece / S::Inputs::kPieces * (S::kInRows * S::kChunk * 2);
    copy_async(tile + S::Inputs::offset(row, piece % S::Inputs::kPieces),
               block.x + static_cast<std::size_t>(from) * S::kIn + piece * 8, exists);
  }
  copy_commit();
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

// sum += x w, taps one after another, over kChannels channels in tiles of Tile::kPieces * 8;
// rows.next() is the warp's first row of the tile for the next tap.
template <class Tile, int kTapsOf, int kChannels, int kTilesN, class Rows>
__device__ void add_products(std::uint32_t x, int tile_bytes, std::uint32_t w, Rows rows,
                             float (&sum)[kTilesN][4]) {
  constexpr int kParts = kChannels / 32, kSteps = kTapsOf * kParts;  // two products each
  const int lane = threadIdx.x % 32;
  const std::uint64_t factors = group_factors(w, kTilesN * 8);
  const auto high = static_cast<std::uint32_t>(factors >> 32);
  const auto low = static_cast<std::uint32_t>(factors);  // the address, which does not carry
  std::uint32_t a[2][2][4];
  const auto address = [&] { return x + Tile::offset(rows.next() + (lane & 15), lane >> 4); };
  const auto add = [&](std::uint32_t row, int step, std::uint32_t (&of)[2][4]) {
    const int piece = step % kParts * 4;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int within = (piece + 2 * k) % Tile::kPieces;
      load_matrices(of[k], (row ^ within << 4) + piece / Tile::kPieces * tile_bytes);
    }
    group_begin();
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const std::uint32_t at = low + static_cast<unsigned>((step * 4 + 2 * k) * kTilesN * 8);
      multiply_group(of[k], std::uint64_t{high} << 32 | at, sum);
    }
    group_commit();
    group_wait<1>();  // the other factors are free
  };
  // Unrolled, the addresses would take all registers.
  if constexpr (kParts == 1) {
#pragma unroll 1
    for (int step = 0; step + 1 < kSteps; step += 2) {
      add(address(), step, a[0]);
      add(address(), step + 1, a[1]);
    }
  } else {
#pragma unroll 1
    for (int tap = 0; tap < kTapsOf; ++tap) {
      const std::uint32_t row = address();
#pragma unroll
      for (int part = 0; part < kParts; ++part) add(row, tap * kParts + part, a[part % 2]);
    }
  }
  group_wait<0>();
  if constexpr (kSteps % 2 == 1) {
    add(address(), kSteps - 1, a[0]);
    group_wait<0>();
  }
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
