// Direct convolution, vectorised over time: tiles of NO outputs x NV vectors of time steps.
//
// Every output sample is one chain of multiply-adds that starts at the bias and walks channels and
// taps in ascending order; edges read zeros from the padded scratch. Its bits therefore depend on
// neither its place in a vector nor the length of the signal.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/kernels/simd.h"

namespace higgs_rt::HIGGS_ISA {

#if defined(__AVX512F__)
constexpr int kConvOutputs = 8;
constexpr int kConvVectors = 3;
#else
constexpr int kConvOutputs = 4;
constexpr int kConvVectors = 2;
#endif
constexpr int kThinVectors = 6;  // of tiles with one or two outputs, which need more chains

// One phase of a transposed convolution, which has no residual.
HIGGS_INLINE void conv_store_strided(const ConvArgs& a, std::int64_t v0, std::int64_t step,
                                     V value) {
  const std::int64_t output = v0 / a.phases;
  const std::int64_t time = (step - output) * a.phases + v0 + a.first;  // of lane 0
  std::int64_t low = 0;
  std::int64_t high = a.count - step < kWidth ? a.count - step : kWidth;
  if (time < 0) low = (a.phases - 1 - time) / a.phases;
  if (time + (high - 1) * a.phases >= a.out_times) {
    high = (a.out_times - time + a.phases - 1) / a.phases;
  }
  float lanes[kWidth];
  store(lanes, value);
  float* out = a.out + output * a.out_times;
  for (std::int64_t i = low; i < high; ++i) out[time + i * a.phases] = lanes[i];
}

// Writes the steps [step, step + kWidth) of virtual output v0 that exist.
HIGGS_INLINE void conv_store(const ConvArgs& a, std::int64_t v0, std::int64_t step, V value) {
  if (a.phases != 1) return conv_store_strided(a, v0, step, value);
  const std::int64_t at = v0 * a.out_times + a.first + step;
  const std::int64_t left = a.count - step;
  if (left >= kWidth) {
    if (a.residual != nullptr) value = value + load(a.residual + at);
    store(a.out + at, value);
  } else if (left > 0) {
    if (a.residual != nullptr) value = value + load_part(a.residual + at, left);
    store_part(a.out + at, value, left);
  }
}

// A tile that ends beyond the block, or one of phases.
template <int NO, int NV>
[[gnu::noinline]] inline void conv_store_edges(const ConvArgs& a, std::int64_t v0,
                                               std::int64_t step, const V (*values)[NV]) {
  for (int o = 0; o < NO; ++o) {
    for (int v = 0; v < NV; ++v) conv_store(a, v0 + o, step + v * kWidth, values[o][v]);
  }
}

template <int NO, int NV>
HIGGS_INLINE void conv_store_tile(const ConvArgs& a, std::int64_t v0, std::int64_t step,
                                  const V (&acc)[NO][NV]) {
  if (a.phases != 1 || step + NV * kWidth > a.count) {
    V values[NO][NV];  // the tile itself stays in registers
    HIGGS_UNROLL
    for (int o = 0; o < NO; ++o) {
      HIGGS_UNROLL
      for (int v = 0; v < NV; ++v) values[o][v] = acc[o][v];
    }
    return conv_store_edges<NO, NV>(a, v0, step, values);
  }
  const std::int64_t first = v0 * a.out_times + a.first + step;
  HIGGS_UNROLL
  for (int o = 0; o < NO; ++o) {
    HIGGS_UNROLL
    for (int v = 0; v < NV; ++v) {
      const std::int64_t at = first + o * a.out_times + v * kWidth;
      store(a.out + at, a.residual == nullptr ? acc[o][v] : acc[o][v] + load(a.residual + at));
    }
  }
}

// `Taps` > 0: as many, so that their loop is unrolled.
template <int NO, int NV, int Taps>
inline void conv_tile(const ConvArgs& a, std::int64_t v0, std::int64_t step) {
  const float* weight[NO];
  V acc[NO][NV];
  HIGGS_UNROLL
  for (int o = 0; o < NO; ++o) {
    const std::int64_t output = a.phases == 1 ? v0 + o : (v0 + o) / a.phases;
    weight[o] = a.weight + output * a.w_output + (v0 + o - output * a.phases);
    HIGGS_UNROLL
    for (int v = 0; v < NV; ++v) acc[o][v] = set1(a.bias[output]);
  }
  const std::int64_t taps = Taps > 0 ? Taps : a.taps;
  const std::int64_t w_tap = Taps > 0 ? 1 : a.w_tap;
  const float* x_channel = a.x + step;
  for (std::int64_t c = 0; c < a.channels; ++c, x_channel += a.x_stride) {
    std::int64_t w = Taps > 0 ? c * Taps : c * a.w_channel;
    const float* x = x_channel;
    HIGGS_UNROLL
    for (std::int64_t k = 0; k < taps; ++k, w += w_tap, x += a.x_step) {
      V xv[NV];
      HIGGS_UNROLL
      for (int v = 0; v < NV; ++v) xv[v] = load(x + v * kWidth);
      HIGGS_UNROLL
      for (int o = 0; o < NO; ++o) {
        const V wv = set1(weight[o][w]);
        HIGGS_UNROLL
        for (int v = 0; v < NV; ++v) acc[o][v] = fma(wv, xv[v], acc[o][v]);
      }
    }
  }
  conv_store_tile<NO, NV>(a, v0, step, acc);
}

template <int NO, int NV, int Taps>
inline void conv_outputs(const ConvArgs& a, std::int64_t v0) {
  std::int64_t step = 0;
  for (; step + (NV - 1) * kWidth < a.count; step += NV * kWidth) {
    conv_tile<NO, NV, Taps>(a, v0, step);
  }
  if constexpr (NV > 2) {
    for (; step + kWidth < a.count; step += 2 * kWidth) conv_tile<NO, 2, Taps>(a, v0, step);
  }
  for (; step < a.count; step += kWidth) conv_tile<NO, 1, Taps>(a, v0, step);
}

template <int Taps>
inline void conv_taps(const ConvArgs& a) {
  std::int64_t v = a.begin;
  for (; v + kConvOutputs <= a.end; v += kConvOutputs) {
    conv_outputs<kConvOutputs, kConvVectors, Taps>(a, v);
  }
  if constexpr (kConvOutputs > 4) {
    for (; v + 4 <= a.end; v += 4) conv_outputs<4, kConvVectors, Taps>(a, v);
  }
  for (; v + 2 <= a.end; v += 2) conv_outputs<2, kConvVectors, Taps>(a, v);
  for (; v < a.end; ++v) conv_outputs<1, kThinVectors, Taps>(a, v);
}

inline void conv(const ConvArgs& a) {
  const bool plain = a.w_tap == 1 && a.w_channel == a.taps;
  if (plain && a.taps == 7) return conv_taps<7>(a);
  if (plain && a.taps == 1) return conv_taps<1>(a);
  conv_taps<0>(a);
}

}  // namespace higgs_rt::HIGGS_ISA
