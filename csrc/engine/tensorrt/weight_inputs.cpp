#include "engine/tensorrt/weight_inputs.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "core/check.h"
#include "model/config.h"
#include "model/weights.h"

namespace higgs_rt {

namespace {

void add_path(std::map<std::string, TensorView>& names, const std::string& prefix,
              const PathWeights& path) {
  names[prefix + "input_layernorm.weight"] = path.input_norm;
  names[prefix + "post_attention_layernorm.weight"] = path.post_attention_norm;
  names[prefix + "mlp.gate_proj.weight"] = path.ffn.gate;
  names[prefix + "mlp.up_proj.weight"] = path.ffn.up;
  names[prefix + "mlp.down_proj.weight"] = path.ffn.down;
}

// By the names of the original layout (specification 2.1).
std::map<std::string, TensorView> by_name(const ModelWeights& weights) {
  std::map<std::string, TensorView> names;
  names["embed_tokens.weight"] = weights.embed_tokens;
  names["audio_codebook_embeddings.weight"] = weights.embed_columns;
  names["norm.weight"] = weights.norm;
  names["audio_decoder_proj.audio_lm_head.weight"] = weights.audio_head;
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const std::string prefix = "layers." + std::to_string(i) + ".";
    names[prefix + "self_attn.q_proj.weight"] = layer.q;
    names[prefix + "self_attn.k_proj.weight"] = layer.k;
    names[prefix + "self_attn.v_proj.weight"] = layer.v;
    names[prefix + "self_attn.o_proj.weight"] = layer.o;
    add_path(names, prefix, layer.text);
    add_path(names, prefix + "audio_", layer.audio);
  }
  return names;
}

float element(const TensorView& tensor, std::int64_t i) {
  return tensor.dtype == DType::kBF16 ? to_float(tensor.as<BF16>()[i]) : tensor.as<float>()[i];
}

// The elements of `tensor` as `dtype`.
std::vector<char> convert(const TensorView& tensor, DType dtype) {
  const std::int64_t count = tensor.size();
  std::vector<char> out(static_cast<std::size_t>(count) * size_of(dtype));
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = element(tensor, i);
    char* place = out.data() + static_cast<std::size_t>(i) * size_of(dtype);
    if (dtype == DType::kF32) {
      std::memcpy(place, &value, sizeof(value));
    } else {
      const std::uint16_t bits = dtype == DType::kBF16 ? to_bf16(value).bits : to_f16_bits(value);
      std::memcpy(place, &bits, sizeof(bits));
    }
  }
  return out;
}

}  // namespace

std::uint16_t to_f16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  if (std::isnan(value)) return sign | 0x7e00u;
  const float magnitude = std::abs(value);
  if (magnitude >= 65520.0f) return sign | 0x7c00u;  // halfway beyond the largest, 65504
  // Adding 2^k leaves the bits that fp16 has: the sum is rounded to nearest, ties to even.
  const int exponent = std::max(std::ilogb(magnitude), -14);
  if (magnitude == 0) return sign;
  const float unit = std::ldexp(1.0f, exponent - 10);  // distance of neighbours
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(magnitude / unit));
  // Normal numbers: the leading bit of `steps` raises the exponent field by one.
  const auto field = static_cast<std::uint32_t>(exponent + 14) << 10;
  return static_cast<std::uint16_t>(sign | (field + steps));
}

std::vector<Tensor> load_weight_inputs(const PlanManifest& manifest, const std::string& model_dir,
                                       Device& device) {
  if (!manifest.weights_are_inputs) return {};
  const auto host = make_cpu_device();
  const ModelWeights weights = load_weights(read_model_config(model_dir),
                                            std::make_shared<const Checkpoint>(model_dir), *host);
  const auto names = by_name(weights);
  std::vector<Tensor> out;
  for (const PlanWeight& wanted : manifest.weight_inputs) {
    const std::string field = manifest.path + ": decoder.weight_inputs." + wanted.name;
    const auto found = names.find(wanted.name);
    check(found != names.end(), field.c_str(), "expected a tensor of the model, got none");
    check(found->second.shape == wanted.shape, field.c_str(), "expected shape ",
          to_string(found->second.shape), " as in the checkpoint, got ", to_string(wanted.shape));
    check(wanted.dtype != DType::kI32, field.c_str(), "expected f32, bf16 or f16, got ",
          name_of(wanted.dtype));
    Tensor& tensor = out.emplace_back(device, wanted.dtype, wanted.shape);
    const void* stored = found->second.data;
    std::vector<char> converted;
    if (found->second.dtype != wanted.dtype) {
      converted = convert(found->second, wanted.dtype);
      stored = converted.data();
    }
    device.copy_from_host(tensor.view().data, stored, tensor.view().bytes());
  }
  device.synchronize();
  return out;
}

}  // namespace higgs_rt
