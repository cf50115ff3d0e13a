#include "model/weight_loader.h"

#include <algorithm>
#include <span>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kNamesInMessage = 5;

std::string join_first(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesInMessage); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > kNamesInMessage) {
    text += " and " + std::to_string(names.size() - kNamesInMessage) + " more";
  }
  return text;
}

bool is_ignored(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_emb.original_inv_freq") ||
         name.ends_with("audio_codebook_weights");
}

}  // namespace

WeightLoader::WeightLoader(const ModelConfig& config, const Checkpoint& checkpoint, Device& device,
                           ModelWeights& weights, Adapter* adapter)
    : prefix_(config.layout == Layout::kTransformers ? "model." : ""),
      checkpoint_(checkpoint),
      device_(device),
      weights_(weights),
      adapter_(adapter) {}

TensorView WeightLoader::backbone(const std::string& name, const Shape& shape) {
  return place(take({prefix_ + name + ".weight"}, shape));
}

TensorView WeightLoader::linear(const std::string& name, std::int64_t outputs,
                                std::int64_t inputs) {
  return place(take({prefix_ + name + ".weight"}, {outputs, inputs}), weights_.linear_dtype);
}

void WeightLoader::linear_group(std::initializer_list<Part> parts, std::int64_t inputs) {
  if (device_.kind() == DeviceKind::kCpu) {
    for (const Part& part : parts) *part.view = linear(part.name, part.outputs, inputs);
    return;
  }
  std::int64_t outputs = 0;
  for (const Part& part : parts) outputs += part.outputs;
  weights_.owned.emplace_back(device_, weights_.linear_dtype, Shape{outputs, inputs});
  const TensorView whole = weights_.owned.back().view();
  std::int64_t begin = 0;
  for (const Part& part : parts) {
    const TensorView stored = take({prefix_ + part.name + ".weight"}, {part.outputs, inputs});
    *part.view = whole.slice(begin, part.outputs);
    begin += part.outputs;
    if (stored) upload(stored, *part.view);
  }
}

TensorView WeightLoader::embedding(const std::string& name, const Shape& shape) {
  const std::string base = prefix_ + name;
  return join_or_take({base + ".weight"}, base + ".embedding", shape, std::nullopt);
}

TensorView WeightLoader::head(const std::string& name, const Shape& shape) {
  const std::string base = "audio_decoder_proj." + name;
  return join_or_take({name + ".weight", base + ".weight"}, base + ".linear", shape,
                      weights_.linear_dtype);
}
void WeightLoader::optional_head(const std::string& name, const Shape& shape) {
  const std::string base = "audio_decoder_proj." + name;
  if (adapter_ != nullptr) adapter_->skip(name + ".weight");
  for (const std::string& half :
       {base + ".linear_frozen.weight", base + ".linear_trainable.weight"}) {
    if (!checkpoint_.contains(half)) continue;
    used_.insert(half);
    const Shape& stored = checkpoint_.shape(half);
    count(checkpoint_.tensor(half, {stored.empty() ? 0 : stored[0], shape[1]}));
  }
  bool counted = false;
  for (const std::string& whole : {name + ".weight", base + ".weight"}) {
    if (!checkpoint_.contains(whole)) continue;
    used_.insert(whole);
    const TensorView view = checkpoint_.tensor(whole, shape);
    if (!counted) count(view);
    counted = true;
  }
}

void WeightLoader::finish() const {
  if (!missing_.empty()) {
    fail(ErrorCode::kNotFound, checkpoint_.directory().c_str(), "expected tensor ",
         join_first(missing_), ", got none");
  }
  std::vector<std::string> extra;
  for (const std::string& name : checkpoint_.names()) {
    if (used_.count(name) == 0 && !is_ignored(name)) extra.push_back(name);
  }
  check(extra.empty(), checkpoint_.directory().c_str(),
        "expected no other tensors than the model's, got ", join_first(extra));
  if (adapter_ != nullptr) adapter_->check_all_used();
}

// The stored tensor, counted; empty when it is missing.
TensorView WeightLoader::take(const std::vector<std::string>& names, const Shape& shape) {
  TensorView found;
  for (const std::string& name : names) {
    if (!checkpoint_.contains(name)) continue;
    used_.insert(name);
    const TensorView view = checkpoint_.tensor(name, shape);
    if (!found) found = view;
  }
  if (!found) {
    missing_.push_back(names.front());
    return found;
  }
  count(found);
  return adapted(names.front(), found);
}

// The tensor with the adapter in it: memory of the host, which away from the CPU lasts until the
// next one is taken.
TensorView WeightLoader::adapted(const std::string& stored_name, const TensorView& stored) {
  const std::string name = transformers_name(stored_name);
  if (adapter_ == nullptr || !adapter_->touches(name)) return stored;
  TensorView merged = stored;
  if (device_.kind() == DeviceKind::kCpu) {
    weights_.owned.emplace_back(device_, stored.dtype, stored.shape);
    merged = weights_.owned.back().view();
  } else {
    scratch_.resize(stored.bytes());
    merged.data = scratch_.data();
  }
  adapter_->merge(name, stored, merged.data);
  return merged;
}

std::string WeightLoader::transformers_name(const std::string& stored) const {
  if (stored.find("_lm_head.") != std::string::npos) return stored;
  const std::string name = stored.substr(prefix_.size());
  if (name == "audio_codebook_embeddings.weight") {
    return "model.embed_audio_tokens.embed_audio_tokens.weight";
  }
  return "model." + name;
}

TensorView WeightLoader::join_or_take(const std::vector<std::string>& names,
                                      const std::string& half, const Shape& shape,
                                      std::optional<DType> dtype) {
  const std::string frozen = half + "_frozen.weight";
  const std::string trainable = half + "_trainable.weight";
  if (!checkpoint_.contains(frozen) && !checkpoint_.contains(trainable)) {
    return place(take(names, shape), dtype);
  }
  for (const std::string& name : {frozen, trainable}) {
    if (!checkpoint_.contains(name)) missing_.push_back(name);
  }
  check(adapter_ == nullptr || !adapter_->touches(transformers_name(names.front())),
        checkpoint_.place(frozen).c_str(),
        "expected a whole tensor for an adapter that changes it, got halves");
  if (!missing_.empty()) return {};
  return join(frozen, trainable, shape, dtype);
}

// Rows of `frozen`, then rows of `trainable`.
TensorView WeightLoader::join(const std::string& frozen, const std::string& trainable,
                              const Shape& shape, std::optional<DType> dtype) {
  used_.insert({frozen, trainable});
  const Shape& first = checkpoint_.shape(frozen);
  const std::int64_t rows = first.empty() ? 0 : std::min(first[0], shape[0]);
  const TensorView top = checkpoint_.tensor(frozen, {rows, shape[1]});
  const TensorView bottom = checkpoint_.tensor(trainable, {shape[0] - rows, shape[1]});
  check(top.dtype == bottom.dtype, checkpoint_.place(trainable).c_str(), "expected dtype ",
        name_of(top.dtype), " as in the frozen half, got ", name_of(bottom.dtype));
  count(top);
  count(bottom);
  weights_.owned.emplace_back(device_, placed_dtype(top, dtype), shape);
  const TensorView& whole = weights_.owned.back().view();
  upload(top, whole.slice(0, rows));
  upload(bottom, whole.slice(rows, shape[0] - rows));
  return whole;
}

// Where the device reads it: the mapping itself on the CPU, elsewhere a copy, of `dtype` if
// given.
TensorView WeightLoader::place(const TensorView& stored, std::optional<DType> dtype) {
  if (!stored || device_.kind() == DeviceKind::kCpu) return stored;
  weights_.owned.emplace_back(device_, placed_dtype(stored, dtype), stored.shape);
  const TensorView& copy = weights_.owned.back().view();
  upload(stored, copy);
  return copy;
}

DType WeightLoader::placed_dtype(const TensorView& stored, std::optional<DType> dtype) const {
  return device_.kind() == DeviceKind::kCpu ? stored.dtype : dtype.value_or(stored.dtype);
}

// Copies to the device; bf16 is widened when `to` is fp32.
void WeightLoader::upload(const TensorView& from, const TensorView& to) {
  if (from.dtype == to.dtype) {
    device_.copy_from_host(to.data, from.data, from.bytes());
    return;
  }
  check(to.dtype == DType::kF32, "weights", "expected to widen bf16 to f32, got ",
        name_of(from.dtype), " to ", name_of(to.dtype));
  const std::span<const BF16> stored(from.as<BF16>(), static_cast<std::size_t>(from.size()));
  std::vector<float> wide(stored.size());
  std::transform(stored.begin(), stored.end(), wide.begin(),
                 [](BF16 value) { return to_float(value); });
  device_.copy_from_host(to.data, wide.data(), to.bytes());
}

void WeightLoader::count(const TensorView& tensor) {
  weights_.num_parameters += tensor.size();
  const std::string dtype = name_of(tensor.dtype);
  weights_.dtype = weights_.dtype.empty() || weights_.dtype == dtype ? dtype : "mixed";
}

}  // namespace higgs_rt
