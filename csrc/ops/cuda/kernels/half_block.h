// A block of the codec decoder in one kernel, for its narrow ends: a transposed convolution, three
// residual units, and what follows them: the snake of the next block, or the last snake and the
// convolution to one channel. Between its input and its output nothing leaves a multiprocessor.
// Compute capability 9.0 (wgmma).
#pragma once

#include "ops/cuda/kernels/half_codec.h"

namespace higgs_rt {

// Exactly one of `activated` and `pcm` is set, as the shape says (half_block_fits).
struct HalfBlock {
  const __half* x;               // [items * in_rows, channels]
  const unsigned char* weights;  // pack_half_block()
  __half* activated;             // [items * rows * ratio, outputs]
  float* pcm;                    // [items, samples]
  std::int32_t rows;             // input times used of each item; rows * ratio are made
  std::int32_t in_rows;          // rows of an item in x
  std::int32_t in_begin;         // of which row in_begin is the first used
  std::int32_t out_begin;        // time of the first row made, counted from the first sample wanted
  std::int32_t rate;             // output times in a frame
  std::int32_t last_begin;       // with pcm: row of the first tap of sample 0
  std::int32_t samples;
  HalfBatch batch;
};

// Numbers of a block on the host. Padded channels are left out: they are added as zeros.
struct HalfBlockNumbers {
  struct Snake {
    const float *alpha, *scale;
  };
  struct Unit {
    Snake before;
    const float *wide, *wide_bias;  // [outputs, outputs, 7]
    Snake between;
    const float *point, *point_bias;  // [outputs, outputs, 1]
  };
  const float *up, *up_bias;  // [channels, outputs, 2 ratio]
  Unit units[3];
  Snake after;                    // of the next block or the last convolution
  const float *last, *last_bias;  // [1, outputs, 7], or null
  std::int64_t channels, outputs, ratio;
};

// Whether the current GPU has a kernel for these padded sizes; `last`: the block before the PCM.
bool half_block_fits(std::int32_t channels, std::int32_t outputs, std::int32_t ratio, bool last);
std::vector<unsigned char> pack_half_block(const HalfBlockNumbers& block);
// For sizes that fit.
cudaError_t launch_half_block(const HalfBlock& block, std::int32_t channels, std::int32_t outputs,
                              cudaStream_t stream);
cudaError_t prepare_half_block();  // as prepare_half_conv()

}  // namespace higgs_rt
