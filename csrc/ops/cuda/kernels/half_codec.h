// Kernels of the batched codec decoder (model/cuda/half_codec.h): operands in fp16, sums and the
// residual stream in fp32.
//
// Signals are [items * rows, channels], times of an item one after another, items one after
// another; channels are padded with zeros to a multiple of kHalfChannels. An item is a window of an
// utterance: times outside of the utterance (`valid`) are written as zeros, which is the padding of
// every layer. The first and last rows of an item may hold numbers that depend on its neighbours;
// windows are cut so that no needed sample sees them (codec_window.h). Each output is summed in one
// order, chunk of channels by chunk, tap by tap, wherever it is: its bits do not depend on the
// window or the batch. All pointers are device memory.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace higgs_rt {

inline constexpr std::int32_t kHalfChannels = 32;
// Shared memory of a block that the convolutions want at most.
inline constexpr int kHalfCodecSharedBytes = 128 * 1024;
inline std::int32_t half_channels(std::int64_t channels) {
  return static_cast<std::int32_t>((channels + kHalfChannels - 1) / kHalfChannels) * kHalfChannels;
}

// Items of a launch: `max_items` sizes the grid, *count of them are computed.
struct HalfBatch {
  const std::int32_t* count;
  const int2* valid;  // [items]: frames [x, y) exist, counted from the first frame wanted
  std::int32_t max_items;
  // The last tiles first: where each kernel goes the other way than the one ahead of it, it begins
  // with what that one wrote last, which is still in the L2 cache.
  bool reverse = false;
  bool early = true;  // kernels may start before those ahead of them have ended (half_launch.cuh)
};

// Snake of each channel: x + scale sin^2(alpha x).
struct HalfSnake {
  const float* alpha;  // [channels]
  const float* scale;  // [channels], 1 / (alpha + 1e-9)
};

// What a convolution does with its sums: v = sum + bias (+ residual), then out = v and
// activated = fp16(snake(v)).
struct HalfConv {
  const __half* x;        // [items * in_rows, channels]
  const __half* weight;   // pack_half_conv() or pack_half_conv_transpose()
  const float* bias;      // [outputs]
  const float* residual;  // of one tap: [items * rows, outputs], or null; may be `out`
  float* out;             // the same shape, or null
  __half* activated;      // the same shape
  HalfSnake snake;        // of `activated`
  std::int32_t channels;  // padded
  std::int32_t outputs;   // padded
  std::int32_t taps;      // 7 or 1, or 2 a phase of a transposed convolution
  std::int32_t dilation;
  std::int32_t padding;
  std::int32_t phases;     // stride of a transposed convolution, else 1
  std::int32_t rows;       // input times used of each item; rows * phases are written
  std::int32_t in_rows;    // rows of an item in x
  std::int32_t in_begin;   // of which row in_begin is the first used
  std::int32_t out_begin;  // time of the first row written, counted from the first sample wanted
  std::int32_t rate;       // output times in a frame
  HalfBatch batch;
};

// Throws nothing; cudaErrorInvalidValue for taps, channels or outputs that no kernel has.
cudaError_t launch_half_conv(const HalfConv& conv, cudaStream_t stream);
// Raises the shared memory limits of the kernels; once per GPU, outside of a graph's recording.
cudaError_t prepare_half_conv();

// A residual unit: the seven-tap convolution of `conv` with wide_bias, the snake `between`, and the
// product with point_weight, whose bias, residual and outputs are `conv`'s. As many outputs as
// channels, half_unit_fits() of them. The same sums as two launches of launch_half_conv().
struct HalfUnit {
  HalfConv conv;
  const float* wide_bias;
  HalfSnake between;
  const __half* point_weight;
};
bool half_unit_fits(std::int32_t channels);  // padded; on the current GPU
cudaError_t launch_half_unit(const HalfUnit& unit, cudaStream_t stream);
cudaError_t prepare_half_unit();  // as prepare_half_conv()

// weight [outputs, channels, taps], to the order in which the kernel reads it.
std::vector<__half> pack_half_conv(const float* weight, std::int64_t outputs, std::int64_t channels,
                                   std::int64_t taps);
// The same for the convolutions of a unit, as many outputs as channels, half_unit_fits() of them.
std::vector<__half> pack_half_unit_conv(const float* weight, std::int64_t channels,
                                        std::int64_t taps);
// weight [channels, outputs, 2 stride], padding ceil(stride / 2).
std::vector<__half> pack_half_conv_transpose(const float* weight, std::int64_t outputs,
                                             std::int64_t channels, std::int64_t stride);

// out[i, d] = fp16(bias[d] + sum over k of tables[k, codes[i, k], d]), 0 outside of the utterance.
struct HalfTables {
  const float* tables;        // [codebooks, vocab, size]
  const float* bias;          // [size]
  const std::int32_t* codes;  // [items, rows, codebooks]
  __half* out;                // [items * rows, channels]
  std::int32_t codebooks, vocab, size, channels;
  std::int32_t rows, begin;  // frames of an item; the first one, counted from the first wanted
  HalfBatch batch;
};
// Not launched ahead of what comes before it: in a graph that is a copy.
cudaError_t launch_half_tables(const HalfTables& tables, cudaStream_t stream);

// The last convolution, to one channel in fp32.
struct HalfLast {
  const __half* x;      // [items * in_rows, channels]
  const float* weight;  // [kLastTaps, channels], padded
  const float* bias;    // [1]
  float* pcm;           // [items, samples]
  std::int32_t channels, in_rows;
  std::int32_t in_begin;  // row of the first tap of sample 0
  std::int32_t samples;
  HalfBatch batch;
};
inline constexpr std::int32_t kLastTaps = 7;
cudaError_t launch_half_last(const HalfLast& last, cudaStream_t stream);

}  // namespace higgs_rt
