// The codec decoder on the GPU: windows of many utterances at once, operands in fp16 on the tensor
// cores, one CUDA graph per shape.
#pragma once

#include <cstddef>
#include <memory>

#include "core/device.h"
#include "io/checkpoint.h"
#include "model/codec_config.h"
#include "model/codec_decoder.h"

namespace higgs_rt {

// Samples have the same bits in every batch and every window with enough context. Throws
// kInvalidArgument when `device`, which must outlive the decoder, is not a CUDA device.
std::unique_ptr<CodecDecoder> make_half_codec_decoder(const CodecConfig& config,
                                                      const Checkpoint& checkpoint, Device& device);

// Shared memory of a block in bytes, and what the decoder wants of it.
struct HalfCodecMemory {
  std::size_t there = 0, wanted = 0;
};
HalfCodecMemory half_codec_memory(Device& device);

}  // namespace higgs_rt
