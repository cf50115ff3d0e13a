// The end of a tile (sm_90a): joined sums by way of shared memory to where they belong.
#pragma once

#include "ops/cuda/kernels/wide_joins.cuh"

namespace higgs_rt::wide {

// Sums of eight rows to shared memory as [rows, kStride].
template <int kRows>
__device__ inline void lay_down(std::uint32_t to, unsigned i, const Four& sums) {
  constexpr int kStride = Sizes<kRows>::kStride;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned output = warp / 4 * kGroupOutputs + warp % 4 * 16 + lane / 4;
  const std::uint32_t place = to + ((8 * i + lane % 4 * 2) * kStride + output) * 4;
  store_here(place, sums.item[0]);
  store_here(place + kStride * 4, sums.item[1]);
  store_here(place + 8 * 4, sums.item[2]);
  store_here(place + (kStride + 8) * 4, sums.item[3]);
}
// The same of all rows of this block.
template <int kRows, class Inbox>
__device__ inline void lay_down_all(std::uint32_t to, const Inbox& inbox,
                                    const float (&sum)[kRows / 2]) {
  if (inbox.work.parts > 1) {
    const int part = inbox.share.part;
    const unsigned count = inbox.eights(part), step = count * kUnitBytes;
    inbox.with_parts([&](auto parts) {
      std::uint32_t at = inbox.place(inbox.work.open_stage[part], 0);
      constexpr int kParts = decltype(parts)::value, kAtOnce = kParts == 0 ? 1 : 2;
#pragma unroll 1
      for (unsigned i = 0; i < count; i += kAtOnce) {
        Four all[kAtOnce];
#pragma unroll
        for (unsigned n = 0; n < kAtOnce; ++n) {
          if (i + n < count) all[n] = inbox.template joined_of<kParts>(at, step);
          at = inbox.wrapped(at + kUnitBytes);
        }
#pragma unroll
        for (unsigned n = 0; n < kAtOnce; ++n) {
          if (i + n < count) lay_down<kRows>(to, i + n, all[n]);
        }
      }
    });
    return;
  }
#pragma unroll
  for (unsigned i = 0; i < kRows / 8; ++i) {
    lay_down<kRows>(to, i, {sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]});
  }
}

// A block's share of the rows, four outputs of both halves at a time.
template <int kRows, WideEnd kEnd>
struct Ending {
  using S = Sizes<kRows>;
  static constexpr unsigned kFours = kOutputs / 8;       // of a half
  static constexpr unsigned kHeld = kRows < 64 ? 1 : 2;  // reads of a thread that go ahead
  const Work& work;
  const Share& share;
  const Halves& halves;
  unsigned first, count;
  RowPlace places[kHeld];
  Ahead held[kHeld];

  __device__ Ending(const Work& all, const Share& mine, const Halves& of_tile)
      : work(all),
        share(mine),
        halves(of_tile),
        first(static_cast<unsigned>(all.eights[mine.part]) * 8),
        count((min(static_cast<unsigned>(all.rows),
                   static_cast<unsigned>(all.eights[mine.part + 1]) * 8) -
               first) *
              kFours) {}

  __device__ int row_of(unsigned i) const { return static_cast<int>(first + i / kFours); }
  __device__ static int output_of(unsigned i) { return static_cast<int>(i % kFours * 4); }
  __device__ Ahead ahead(unsigned i, const RowPlace& at) const {
    return read_ahead<kEnd>(work.to, work.outputs, halves, output_of(i), row_of(i), at);
  }
  // Of this thread's items, the kHeld from the n-th on.
  template <class Body>
  __device__ void for_held(unsigned n, Body body) {
#pragma unroll
    for (unsigned h = 0; h < kHeld; ++h) {
      const unsigned i = threadIdx.x + (n + h) * kMultiplying;
      if (i < count) body(h, i);
    }
  }
  // Before the products: what does not depend on anything else.
  __device__ void prepare() {
    for_held(0, [&](unsigned h, unsigned i) {
      places[h] = place_of_row<kEnd>(work.to, row_of(i));
      if (kEnd == WideEnd::kAdd) held[h] = ahead(i, places[h]);
    });
  }
  // Behind them: angles, for which the products would wait for positions.
  __device__ void prepare_late() {
    if (kEnd != WideEnd::kQkv) return;
    for_held(0, [&](unsigned h, unsigned i) { held[h] = ahead(i, places[h]); });
  }
  // Factors of this block's rows; one warp.
  __device__ void find_factors(float* factors) const {
    if (work.factors.squares == nullptr) return;
    for (unsigned r = threadIdx.x % 32; r < count / kFours; r += 32) {
      factors[r] = factor_of(work.factors, static_cast<int>(first + r));
    }
  }
  __device__ void write(std::uint32_t sums, const float* factors, unsigned i,
                        const Ahead& before) const {
    const int row = row_of(i), j = output_of(i);
    const std::uint32_t place = sums + (i / kFours * S::kStride + i % kFours * 4) * 4;
    Four low = load_here(place), high = load_here(place + kOutputs / 2 * 4);
    if (kEnd != WideEnd::kAdd && work.factors.squares != nullptr) {
      const float factor = factors[i / kFours];
#pragma unroll
      for (int n = 0; n < 4; ++n) low.item[n] *= factor, high.item[n] *= factor;
    }
    float squares = write_four<kEnd>(work.to, work.outputs, halves, j, row, low, high, before);
    if (kEnd != WideEnd::kAdd || work.to.next.squares == nullptr) return;
    static_assert(kFours == 16, "half a warp has a row of the tile");
    const unsigned half = 0xFFFFu << (threadIdx.x & 16);
    for (int n = 8; n > 0; n /= 2) squares += __shfl_xor_sync(half, squares, n);
    if (j == 0) work.to.next.squares[share.tile * kWideMaxRows + row] = squares;
  }
  template <class Inbox>
  __device__ void finish(const Inbox& inbox, std::uint32_t sums, const float (&sum)[kRows / 2],
                         const float* factors) {
    meet_warps<kMultiplied, kMultiplying>();  // nobody reads the rows any more
    lay_down_all<kRows>(sums, inbox, sum);
    meet_warps<kEnded, kMultiplying + 32>();
    write_all(sums, factors);
  }
  __device__ void write_all(std::uint32_t sums, const float* factors) {
#pragma unroll 1
    for (unsigned n = 0; n * kMultiplying < count; n += kHeld) {
      if (n > 0) {
        for_held(n, [&](unsigned h, unsigned i) {
          held[h] = ahead(i, place_of_row<kEnd>(work.to, row_of(i)));
        });
      }
      for_held(n, [&](unsigned h, unsigned i) { write(sums, factors, i, held[h]); });
    }
  }
};

}  // namespace higgs_rt::wide
