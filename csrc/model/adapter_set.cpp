#include "model/adapter_set.h"

#include <algorithm>
#include <memory>

#include "model/adapter.h"

namespace higgs_rt {

namespace {

constexpr std::int64_t kRankUnit = 8;  // ops.h

float element(const TensorView& tensor, std::int64_t i) {
  return tensor.dtype == DType::kF32 ? tensor.as<float>()[i] : to_float(tensor.as<BF16>()[i]);
}

// A stack of matrices [n, rows, columns] in host memory, zeros at first.
class Stack {
 public:
  Stack(std::int64_t count, std::int64_t rows, std::int64_t columns)
      : shape_({count, rows, columns}), values_(static_cast<std::size_t>(num_elements(shape_))) {}

  // Writes a matrix into the upper left corner of number `index`.
  void put(std::int64_t index, const TensorView& matrix) {
    for (std::int64_t row = 0; row < matrix.dim(0); ++row) {
      float* to = values_.data() + (index * shape_[1] + row) * shape_[2];
      for (std::int64_t i = 0; i < matrix.dim(1); ++i) {
        to[i] = element(matrix, row * matrix.dim(1) + i);
      }
    }
  }

  Tensor upload(DType dtype, Device& device) const {
    Tensor tensor(device, dtype, shape_);
    if (dtype == DType::kF32) {
      device.copy_from_host(tensor.view().data, values_.data(), tensor.view().bytes());
      return tensor;
    }
    std::vector<BF16> rounded(values_.size());
    std::transform(values_.begin(), values_.end(), rounded.begin(), to_bf16);
    device.copy_from_host(tensor.view().data, rounded.data(), tensor.view().bytes());
    return tensor;
  }

 private:
  Shape shape_;
  std::vector<float> values_;
};

class Loader {
 public:
  Loader(const ModelConfig& config, DType dtype, Device& device)
      : config_(config), dtype_(dtype), device_(device) {}

  AdapterSet load(const std::vector<NamedAdapter>& adapters) {
    std::vector<float> scales;
    for (const NamedAdapter& adapter : adapters) {
      sources_.push_back(std::make_unique<Adapter>(adapter.directory));
      sources_.back()->check_factors_only();
      set_.names.push_back(adapter.name);
      set_.rank = std::max<std::int64_t>(set_.rank, sources_.back()->rank());
      scales.push_back(static_cast<float>(sources_.back()->scale()));
    }
    set_.rank = (set_.rank + kRankUnit - 1) / kRankUnit * kRankUnit;
    for (std::int32_t i = 0; i < config_.num_layers; ++i) set_.layers.push_back(layer(i));
    for (const auto& source : sources_) {
      source->skip("text_lm_head.weight");  // as in the checkpoint: not used
      source->check_all_used();
    }
    set_.scale = Tensor(device_, DType::kF32, {static_cast<std::int64_t>(scales.size())});
    device_.copy_from_host(set_.scale.view().data, scales.data(), set_.scale.view().bytes());
    return std::move(set_);
  }

 private:
  LayerAdapters layer(std::int32_t index) {
    const std::string name = "model.layers." + std::to_string(index) + ".";
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t q = std::int64_t{config_.num_heads} * config_.head_dim;
    const std::int64_t kv = std::int64_t{config_.num_kv_heads} * config_.head_dim;
    return {.qkv = {weight(name + "self_attn.q_proj", q, hidden),
                    weight(name + "self_attn.k_proj", kv, hidden),
                    weight(name + "self_attn.v_proj", kv, hidden)},
            .o = weight(name + "self_attn.o_proj", hidden, q),
            .text = ffn(name + "mlp.", config_.text_ffn),
            .audio = ffn(name + "audio_mlp.", config_.audio_ffn)};
  }

  FfnAdapters ffn(const std::string& name, std::int64_t width) {
    const std::int64_t hidden = config_.hidden_size;
    return {.gate_up = {weight(name + "gate_proj", width, hidden),
                        weight(name + "up_proj", width, hidden)},
            .down = weight(name + "down_proj", hidden, width)};
  }

  Ops::Lora weight(const std::string& module, std::int64_t outputs, std::int64_t inputs) {
    const std::string name = module + ".weight";
    if (std::none_of(sources_.begin(), sources_.end(),
                     [&](const auto& source) { return source->touches(name); })) {
      return {};
    }
    const auto count = static_cast<std::int64_t>(sources_.size());
    Stack a(count, set_.rank, inputs), b(count, outputs, set_.rank);
    for (std::int64_t i = 0; i < count; ++i) {
      Adapter& source = *sources_[static_cast<std::size_t>(i)];
      if (!source.touches(name)) continue;
      const Adapter::Factors factors = source.factors(name, outputs, inputs);
      a.put(i, factors.a);
      b.put(i, factors.b);
    }
    return {keep(a.upload(dtype_, device_)), keep(b.upload(dtype_, device_))};
  }

  TensorView keep(Tensor tensor) {
    set_.owned.push_back(std::move(tensor));
    return set_.owned.back().view();
  }

  const ModelConfig& config_;
  const DType dtype_;
  Device& device_;
  std::vector<std::unique_ptr<Adapter>> sources_;
  AdapterSet set_;
};

}  // namespace

AdapterSet load_adapters(const std::vector<NamedAdapter>& adapters, const ModelConfig& config,
                         DType dtype, Device& device) {
  if (adapters.empty()) return {};
  return Loader(config, dtype, device).load(adapters);
}

}  // namespace higgs_rt
