// Transposed convolution over weights that CpuOps::pack_transposed() has put into tiles.
//
// The same chain for every sample as conv.h: from the bias over channels and taps in ascending
// order. A tile holds all phases of its outputs, so that whole runs of samples are written.
#pragma once

#include "ops/cpu/kernels/conv.h"

namespace higgs_rt::HIGGS_ISA {

// Vectors of time of a tile of so many virtual outputs, as many as the registers hold sums for.
#if defined(__AVX512F__)
constexpr int up_vectors(int virtual_outputs) { return virtual_outputs <= 6 ? 4 : 3; }
#else
constexpr int up_vectors(int virtual_outputs) { return virtual_outputs <= 6 ? 2 : 1; }
#endif

#if defined(__AVX512F__)
// Vector j of the samples takes lane index[j][i] of phase q where bit i of mask[j][q] is set.
template <int P>
struct Interleave {
  alignas(64) std::int32_t index[P][kWidth] = {};
  std::uint16_t mask[P][P] = {};
  constexpr Interleave() {
    for (int at = 0; at < P * kWidth; ++at) {
      index[at / kWidth][at % kWidth] = at / P;
      mask[at / kWidth][at % P] |= static_cast<std::uint16_t>(1u << at % kWidth);
    }
  }
};

// to[i * P + q] = phases[q * NV][i]
template <int P, int NV>
HIGGS_INLINE void store_interleaved(const V* phases, float* to) {
  static constexpr Interleave<P> kOrder;
  HIGGS_UNROLL
  for (int j = 0; j < P; ++j) {
    const __m512i index = _mm512_load_si512(kOrder.index[j]);
    V samples{};
    HIGGS_UNROLL
    for (int q = 0; q < P; ++q) {
      samples = _mm512_mask_permutexvar_ps(samples, kOrder.mask[j][q], index, phases[q * NV]);
    }
    store(to + j * kWidth, samples);
  }
}
#endif

// The P phases of one output, steps [step, step + kWidth).
template <int P, int NV>
HIGGS_INLINE void up_store(const ConvArgs& a, std::int64_t output, std::int64_t step,
                           const V* phases) {
#if defined(__AVX512F__)
  const std::int64_t time = step * P + a.first;
  if (step + kWidth <= a.count && time >= 0 && time + P * kWidth <= a.out_times) {
    return store_interleaved<P, NV>(phases, a.out + output * a.out_times + time);
  }
#endif
  HIGGS_UNROLL
  for (int q = 0; q < P; ++q) conv_store_strided(a, output * P + q, step, phases[q * NV]);
}

// NO virtual outputs, all phases of NO / P, at `weight` [channels, taps, NO].
template <int P, int NO, int NV>
inline void up_tile(const ConvArgs& a, const float* weight, std::int64_t output,
                    std::int64_t step) {
  V acc[NO][NV];
  HIGGS_UNROLL
  for (int o = 0; o < NO; ++o) {
    HIGGS_UNROLL
    for (int v = 0; v < NV; ++v) acc[o][v] = set1(a.bias[output + o / P]);
  }
  const float* x_channel = a.x + step;
  for (std::int64_t c = 0; c < a.channels; ++c, x_channel += a.x_stride) {
    const float* x = x_channel;
    for (std::int64_t k = 0; k < a.taps; ++k, weight += NO, x += a.x_step) {
      V xv[NV];
      HIGGS_UNROLL
      for (int v = 0; v < NV; ++v) xv[v] = load(x + v * kWidth);
      HIGGS_UNROLL
      for (int o = 0; o < NO; ++o) {
        const V wv = set1(weight[o]);
        HIGGS_UNROLL
        for (int v = 0; v < NV; ++v) acc[o][v] = fma(wv, xv[v], acc[o][v]);
      }
    }
  }
  HIGGS_UNROLL
  for (int v = 0; v < NV; ++v) {
    HIGGS_UNROLL
    for (int o = 0; o < NO / P; ++o) {
      up_store<P, NV>(a, output + o, step + v * kWidth, &acc[o * P][v]);
    }
  }
}

template <int P>
inline void up_outputs(const ConvArgs& a) {
  constexpr int kOutputs = static_cast<int>(up_tile_outputs(P));
  constexpr int kVectors = up_vectors(kOutputs);
  for (std::int64_t v = a.begin; v < a.end; v += kOutputs) {
    const float* weight = a.weight + v * a.channels * a.taps;
    const std::int64_t output = v / P;
    std::int64_t step = 0;
    for (; step + (kVectors - 1) * kWidth < a.count; step += kVectors * kWidth) {
      up_tile<P, kOutputs, kVectors>(a, weight, output, step);
    }
    if constexpr (kVectors > 2) {
      for (; step + kWidth < a.count; step += 2 * kWidth) {
        up_tile<P, kOutputs, 2>(a, weight, output, step);
      }
    }
    for (; step < a.count; step += kWidth) up_tile<P, kOutputs, 1>(a, weight, output, step);
  }
}

// Virtual outputs [begin, end), whole tiles.
inline void conv_transposed(const ConvArgs& a) {
  switch (a.phases) {
    case 2:
      return up_outputs<2>(a);
    case 3:
      return up_outputs<3>(a);
    case 4:
      return up_outputs<4>(a);
    case 5:
      return up_outputs<5>(a);
    case 6:
      return up_outputs<6>(a);
    case 7:
      return up_outputs<7>(a);
    case 8:
      return up_outputs<8>(a);
  }
}

}  // namespace higgs_rt::HIGGS_ISA
