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

template <int NO, int NV>
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
  const float* x_channel = a.x + step;
  for (std::int64_t c = 0; c < a.channels; ++c, x_channel += a.x_stride) {
    std::int64_t w = c * a.w_channel;
    const float* x = x_channel;
    for (std::int64_t k = 0; k < a.taps; ++k, w += a.w_tap, x += a.x_step) {
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
  HIGGS_UNROLL
  for (int o = 0; o < NO; ++o) {
    HIGGS_UNROLL
    for (int v = 0; v < NV; ++v) conv_store(a, v0 + o, step + v * kWidth, acc[o][v]);
  }
}

template <int NO, int NV>
inline void conv_outputs(const ConvArgs& a, std::int64_t v0) {
  std::int64_t step = 0;
  for (; step + (NV - 1) * kWidth < a.count; step += NV * kWidth) conv_tile<NO, NV>(a, v0, step);
  if constexpr (NV > 2) {
    for (; step + kWidth < a.count; step += 2 * kWidth) conv_tile<NO, 2>(a, v0, step);
  }
  for (; step < a.count; step += kWidth) conv_tile<NO, 1>(a, v0, step);
}

inline void conv(const ConvArgs& a) {
  std::int64_t v = a.begin;
  for (; v + kConvOutputs <= a.end; v += kConvOutputs)
    conv_outputs<kConvOutputs, kConvVectors>(a, v);
  if constexpr (kConvOutputs > 4) {
    for (; v + 4 <= a.end; v += 4) conv_outputs<4, kConvVectors>(a, v);
  }
  for (; v + 2 <= a.end; v += 2) conv_outputs<2, kConvVectors>(a, v);
  for (; v < a.end; ++v) conv_outputs<1, kThinVectors>(a, v);
}

}  // namespace higgs_rt::HIGGS_ISA
