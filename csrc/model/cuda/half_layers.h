// The layers of the batched codec decoder, enqueued one after another.
#pragma once

#include <cstdint>

#include "model/codec_config.h"
#include "model/codec_window.h"
#include "model/cuda/half_weights.h"

namespace higgs_rt {

// Signals between layers, each of the largest layer's size.
struct HalfBuffers {
  GpuArray<__half> a, b;
  GpuArray<float> x;  // residual stream
};

// codes [items, window.rows, codebooks] to pcm [items, window.frames * samples per frame], device
// memory. Allocates nothing and waits for nothing.
void enqueue_half_layers(const CodecConfig& config, const HalfCodecWeights& weights,
                         const HalfBuffers& buffers, const CodecWindow& window, HalfBatch batch,
                         const std::int32_t* codes, float* pcm, cudaStream_t stream);

}  // namespace higgs_rt
