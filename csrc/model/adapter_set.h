// LoRA adapters kept apart from the weights, so that each row of a step may have another one.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"
#include "higgs_rt/types.h"
#include "model/config.h"
#include "ops/ops.h"

namespace higgs_rt {

// Of one modality's FFN in one layer.
struct FfnAdapters {
  std::array<Ops::Lora, 2> gate_up;
  Ops::Lora down;
};

struct LayerAdapters {
  std::array<Ops::Lora, 3> qkv;
  Ops::Lora o;
  FfnAdapters text, audio;
};

// Adapters side by side on the device, by index. Memory of each: rank * (inputs + outputs) elements
// of every weight that any of them adapts, where `rank` is the largest one's, rounded up to 8.
struct AdapterSet {
  std::vector<std::string> names;
  std::vector<LayerAdapters> layers;
  std::int64_t rank = 0;
  Tensor scale;  // [n] fp32
  std::vector<Tensor> owned;

  bool empty() const { return names.empty(); }
};

// `dtype`: of the activations, to which the factors are rounded. Throws as Adapter does, and
// kInvalidArgument that names a tensor which cannot be kept apart: one that was trained in full, or
// factors for anything else than the layers' q, k, v, o, gate, up and down.
AdapterSet load_adapters(const std::vector<NamedAdapter>& adapters, const ModelConfig& config,
                         DType dtype, Device& device);

}  // namespace higgs_rt
