// The weights of a plan that takes them as inputs: from the checkpoint to the device.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.h"
#include "engine/tensorrt/manifest.h"

namespace higgs_rt {

// In the order of manifest.weight_inputs, each in the element type that it has there (conversion
// rounds to nearest, ties to even). Throws kInvalidArgument that names a tensor that the model of
// `model_dir` does not have in that shape, kResourceExhausted.
std::vector<Tensor> load_weight_inputs(const PlanManifest& manifest, const std::string& model_dir,
                                       Device& device);

// Bits of the fp16 number nearest to `value`, ties to even; beyond the largest one: infinity.
std::uint16_t to_f16_bits(float value);

}  // namespace higgs_rt
