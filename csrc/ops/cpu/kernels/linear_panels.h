// out = x weight^T over weights that CpuOps::pack() has put into panels of kPanel outputs.
//
// Lanes are outputs, so no lane ever has to meet another: every (row, output) pair is one chain of
// multiply-adds over the inputs in ascending order, whatever the tile it is computed in.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/kernels/simd.h"

namespace higgs_rt::HIGGS_ISA {

constexpr int kStripVectors = static_cast<int>(kStrip) / kWidth;

// Tiles of some rows x as many strips as the registers hold sums for.
#if defined(__AVX512F__)
constexpr int kMaxPanelRows = 8;
constexpr int strips_for(int rows) { return rows <= 6 ? 4 : 2; }
#elif defined(__AVX2__)
constexpr int kMaxPanelRows = 4;
constexpr int strips_for(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
#else
constexpr int kMaxPanelRows = 2;
constexpr int strips_for(int rows) { return rows == 1 ? 2 : 1; }
#endif
// Inputs by which weights from afar are asked for early; a tall tile takes longer for an input.
constexpr int ahead_for(int rows) { return rows < 4 ? 64 : 256; }

template <int NS, int NR>
HIGGS_INLINE void panel_store(const LinearArgs& a, std::int64_t row, std::int64_t strip,
                              const V (&acc)[NS][kStripVectors][NR]) {
  HIGGS_UNROLL
  for (int s = 0; s < NS; ++s) {
    HIGGS_UNROLL
    for (int v = 0; v < kStripVectors; ++v) {
      const std::int64_t o = (strip + s) * kStrip + v * kWidth;
      const std::int64_t left = a.outputs - o;
      if (left <= 0) return;
      HIGGS_UNROLL
      for (int r = 0; r < NR; ++r) {
        float* out = a.out + (row + r) * a.outputs + o;
        V value = acc[s][v][r];
        if (left >= kWidth) {
          if (a.accumulate) value = load(out) + value;
          store(out, value);
        } else {
          if (a.accumulate) value = load_part(out, left) + value;
          store_part(out, value, left);
        }
      }
    }
  }
}

// The pieces of far memory that a tile asks for beside its work: tall ones only, which wait for
// multiply-adds and not for memory.
struct FarPieces {
  const char* first;
  const char* second;
  std::int64_t step;  // from line to line; 0: there is nothing to ask for, and a line at hand is
};

HIGGS_INLINE FarPieces take_pieces(FarMemory* far, const void* at_hand) {
  if (far != nullptr && __atomic_load_n(&far->next, __ATOMIC_RELAXED) + 1 < far->count) {
    const std::int64_t next = __atomic_fetch_add(&far->next, 2, __ATOMIC_RELAXED);
    if (next + 1 < far->count) return {far->pieces[next], far->pieces[next + 1], kFarLine};
  }
  return {static_cast<const char*>(at_hand), static_cast<const char*>(at_hand), 0};
}

// Strips [strip, strip + NS) of one panel for rows [row, row + NR). `Fetch`: the weights come from
// farther than the second-level cache.
template <int NS, int NR, bool Fetch>
inline void panel_tile(const LinearArgs& a, std::int64_t row, std::int64_t strip) {
  V acc[NS][kStripVectors][NR];
  HIGGS_UNROLL
  for (int s = 0; s < NS; ++s) {
    HIGGS_UNROLL
    for (int v = 0; v < kStripVectors; ++v) {
      HIGGS_UNROLL
      for (int r = 0; r < NR; ++r) acc[s][v][r] = V{};
    }
  }
  const std::uint16_t* weight = static_cast<const std::uint16_t*>(a.weight) +
                                strip / kPanelStrips * kPanelStrips * kStrip * a.inputs +
                                strip % kPanelStrips * kStrip * 2;
  const float* x = a.x + row * a.inputs;
  constexpr bool kFar = Fetch && NR >= 4;
  for (std::int64_t begin = 0; begin < a.inputs; begin += 2 * kFarLines) {
    const std::int64_t end = begin + 2 * kFarLines < a.inputs ? begin + 2 * kFarLines : a.inputs;
    FarPieces far{};
    if constexpr (kFar) far = take_pieces(a.far, x);
    for (std::int64_t i = begin; i < end; i += 2, weight += 2 * kPanelStrips * kStrip) {
      V even[NS][kStripVectors];  // input i of every output
      V odd[NS][kStripVectors];
      if constexpr (kFar) {
        prefetch_near(far.first);
        prefetch_near(far.second);
        far.first += far.step;
        far.second += far.step;
      }
      HIGGS_UNROLL
      for (int s = 0; s < NS; ++s) {
        const std::uint16_t* pairs = weight + s * kStrip * 2;
        if constexpr (Fetch) prefetch(pairs + ahead_for(NR) * kPanelStrips * kStrip);
        HIGGS_UNROLL
        for (int v = 0; v < kStripVectors; ++v) {
          VI pair;
          std::memcpy(&pair, pairs + 2 * v * kWidth, sizeof(pair));
          even[s][v] = (V)(pair << 16);
          odd[s][v] = (V)(pair & static_cast<std::int32_t>(0xffff0000));
        }
      }
      HIGGS_UNROLL
      for (int r = 0; r < NR; ++r) {
        const V first = set1(x[r * a.inputs + i]);
        const V second = set1(x[r * a.inputs + i + 1]);
        HIGGS_UNROLL
        for (int s = 0; s < NS; ++s) {
          HIGGS_UNROLL
          for (int v = 0; v < kStripVectors; ++v) {
            acc[s][v][r] = fma(odd[s][v], second, fma(even[s][v], first, acc[s][v][r]));
          }
        }
      }
    }
  }
  panel_store<NS, NR>(a, row, strip, acc);
}

template <int NR, bool Fetch>
inline void panel_rows(const LinearArgs& a, std::int64_t row, std::int64_t begin,
                       std::int64_t end) {
  constexpr int kMost = strips_for(NR);
  for (std::int64_t s = begin; s < end;) {
    if (kMost >= 4 && s % 4 == 0 && s + 4 <= end) {
      panel_tile<kMost, NR, Fetch>(a, row, s);
      s += 4;
    } else if (kMost >= 2 && s % 2 == 0 && s + 2 <= end) {
      panel_tile < kMost<2 ? 1 : 2, NR, Fetch>(a, row, s);
      s += 2;
    } else {
      panel_tile<1, NR, Fetch>(a, row, s);
      s += 1;
    }
  }
}

template <bool Fetch>
inline void panel_height(const LinearArgs& a, std::int64_t height, std::int64_t row,
                         std::int64_t begin, std::int64_t end) {
  switch (height) {
    case 1:
      return panel_rows<1, Fetch>(a, row, begin, end);
    case 2:
      return panel_rows<2, Fetch>(a, row, begin, end);
#if defined(__AVX2__)
    case 3:
      return panel_rows<3, Fetch>(a, row, begin, end);
    case 4:
      return panel_rows<4, Fetch>(a, row, begin, end);
#endif
#if defined(__AVX512F__)
    case 5:
      return panel_rows<5, Fetch>(a, row, begin, end);
    case 6:
      return panel_rows<6, Fetch>(a, row, begin, end);
    case 7:
      return panel_rows<7, Fetch>(a, row, begin, end);
    case 8:
      return panel_rows<8, Fetch>(a, row, begin, end);
#endif
  }
}

// Strips [begin, end) of all rows, in blocks that stay in the second-level cache while all rows
// pass (as linear() in linear.h).
inline void linear_panels(const LinearArgs& a, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kBlockBytes = 256 << 10;
  const std::int64_t fits = kBlockBytes / (a.inputs * kPanelStrips * kStrip * 2) * kPanelStrips;
  const std::int64_t block = a.rows <= kMaxPanelRows ? end - begin : fits > 0 ? fits : kPanelStrips;
  const std::int64_t tiles = (a.rows + kMaxPanelRows - 1) / kMaxPanelRows;
  for (std::int64_t s = begin; s < end; s += block) {
    const std::int64_t stop = s + block < end ? s + block : end;
    for (std::int64_t t = 0, row = 0; t < tiles; ++t) {
      const std::int64_t height = (a.rows - row) / (tiles - t);
      if (t == 0) {
        panel_height<true>(a, height, row, s, stop);
      } else {
        panel_height<false>(a, height, row, s, stop);
      }
      row += height;
    }
  }
}

}  // namespace higgs_rt::HIGGS_ISA
