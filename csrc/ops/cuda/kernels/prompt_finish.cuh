// When a product of prompt rows asks for what its end needs, and how its sums get there (sm_90a).
#pragma once

#include "ops/cuda/kernels/prompt_form.cuh"
#include "ops/cuda/kernels/prompt_outputs.cuh"

namespace higgs_rt::prompt {

// What is done with a tile's sums: made before its products, when it asks for what it needs.
template <class F, class End>
struct Finish {
  using P = typename End::Pieces;
  using Ahead = typename End::Ahead;
  static constexpr int kPieces = (F::kRows + P::kRows - 1) / P::kRows;
  // All at once where registers are left for it, otherwise a piece ahead, or not even that.
  static constexpr bool kAll = F::kRows / 2 + kPieces * End::kAheadRegisters <= 120;
  static constexpr bool kEarly = F::kRows <= 208;
  Ahead ahead[kAll ? kPieces : 1];
  int tile, first, limit;

  __device__ Finish(const End& end, int tile, int first, int limit)
      : tile(tile), first(first), limit(limit) {
    if constexpr (kAll) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) ahead[i] = end.ahead(tile, first + i * P::kRows, limit);
    }
  }
  __device__ void write(const End& end, std::uint32_t memory, const float (&sum)[F::kRows / 2]) {
    if constexpr (!kAll && kEarly) ahead[0] = end.ahead(tile, first, limit);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const std::uint32_t place = memory + piece % 2 * P::kBytes;
      P::lay_down(place, piece, sum);
      meet_readers<F::kReaders>();
      const int row = first + piece * P::kRows;
      if constexpr (kAll) {
        end.write(place, tile, row, limit, ahead[piece]);
      } else {
        const Ahead now = kEarly ? ahead[0] : end.ahead(tile, row, limit);
        if (kEarly && piece + 1 < kPieces) ahead[0] = end.ahead(tile, row + P::kRows, limit);
        end.write(place, tile, row, limit, now);
      }
    }
  }
};

// A thread's sums are of two outputs, eight apart, and of pairs of rows; eight lanes together have
// whole sectors. What they are added to comes while the products run.
template <class F, int kTile>
struct Finish<F, AddEnd<kTile>> {
  static_assert(F::kOutputs == kTile && F::kRows <= 128, "registers for as many numbers again");
  static constexpr int kSums = F::kRows / 2;
  float before[kSums];
  float* place;  // of the first output in the first row
  int left;      // rows from there on
  int stride;
  bool inside[2];

  __device__ Finish(const AddEnd<kTile>& end, int tile, int first, int limit)
      : stride(end.outputs) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int offset = warp % 4 * 16 + lane / 4, row = first + lane % 4 * 2;
    const int output = tile * kTile + warp / 4 * F::kGroupOutputs + offset;
    left = limit - row;
    place = end.out + std::int64_t{row} * stride + output;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      inside[half] = offset + 8 * half < F::kGroupOutputs && output + 8 * half < stride;
    }
#pragma unroll
    for (int i = 0; i < kSums; ++i) before[i] = is_real(i) ? *at(i) : 0.0f;
  }
  __device__ static int row_of(int i) { return i / 4 * 8 + i % 2; }
  __device__ bool is_real(int i) const { return inside[i / 2 % 2] && row_of(i) < left; }
  __device__ float* at(int i) const {
    return place + std::int64_t{row_of(i)} * stride + i / 2 % 2 * 8;
  }
  __device__ void write(const AddEnd<kTile>&, std::uint32_t, const float (&sum)[kSums]) {
    asm volatile("" : "+l"(place), "+r"(stride));  // addresses are found anew, not kept
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      if (is_real(i)) *at(i) = sum[i] + before[i];
    }
  }
};

}  // namespace higgs_rt::prompt
