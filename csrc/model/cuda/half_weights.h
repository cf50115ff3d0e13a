// The codec's decode tensors as the kernels of ops/cuda/kernels/half_codec.h read them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/cuda/cuda_device.h"
#include "io/checkpoint.h"
#include "model/codec_config.h"
#include "ops/cuda/kernels/half_block.h"
#include "ops/cuda/kernels/half_codec.h"

namespace higgs_rt {

// An array in the GPU's memory.
template <class T>
class GpuArray {
 public:
  GpuArray() = default;
  GpuArray(CudaDevice& device, std::size_t count) : memory_(device.allocate(count * sizeof(T))) {}
  GpuArray(CudaDevice& device, const std::vector<T>& values) : GpuArray(device, values.size()) {
    device.copy_from_host(memory_.get(), values.data(), values.size() * sizeof(T));
  }
  T* get() const { return static_cast<T*>(memory_.get()); }

 private:
  std::shared_ptr<void> memory_;
};

struct HalfSnakeWeights {
  GpuArray<float> alpha, scale;
  HalfSnake view() const { return {alpha.get(), scale.get()}; }
};

struct HalfConvWeights {
  GpuArray<__half> weight;
  GpuArray<float> bias;
  std::int32_t channels = 0, outputs = 0;  // padded
};

struct HalfUnitWeights {
  HalfSnakeWeights snake1;
  HalfConvWeights conv1;
  HalfSnakeWeights snake2;
  HalfConvWeights conv2;
};

struct HalfBlockWeights {
  std::int32_t channels = 0, outputs = 0;  // padded
  GpuArray<unsigned char> joined;          // of half_block.h where that fits, else what follows
  HalfSnakeWeights snake;
  HalfConvWeights upsample;
  std::vector<HalfUnitWeights> units;
};

struct HalfCodecWeights {
  GpuArray<float> tables, table_bias;
  HalfConvWeights first;
  std::vector<HalfBlockWeights> blocks;
  HalfSnakeWeights last_snake;
  GpuArray<float> last, last_bias;
  std::int32_t last_channels = 0;  // padded
};

// As load_codec_weights().
HalfCodecWeights load_half_codec_weights(const CodecConfig& config, const Checkpoint& checkpoint,
                                         CudaDevice& device);

}  // namespace higgs_rt
