#include "model/weights.h"

#include <algorithm>
#include <optional>
#include <set>
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

// A factor of a matrix product that the runtime computes.
bool is_linear(const std::string& name) {
  return name.ends_with("_proj.weight") || name.find("audio_lm_head.") != std::string::npos;
}

// bf16 when every linear weight is.
DType linear_dtype_of(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    if (!is_linear(name)) continue;
    if (checkpoint.tensor(name, checkpoint.shape(name)).dtype != DType::kBF16) return DType::kF32;
  }
  return DType::kBF16;
}

// Takes tensors out of a checkpoint by their names and remembers what was asked for.
class Loader {
 public:
  Loader(const ModelConfig& config, const Checkpoint& checkpoint, Device& device,
         ModelWeights& weights, Adapter* adapter)
      : prefix_(config.layout == Layout::kTransformers ? "model." : ""),
        checkpoint_(checkpoint),
        device_(device),
        weights_(weights),
        adapter_(adapter) {}

  TensorView backbone(const std::string& name, const Shape& shape) {
    return place(take({prefix_ + name + ".weight"}, shape));
  }

  TensorView linear(const std::string& name, std::int64_t outputs, std::int64_t inputs) {
    return place(take({prefix_ + name + ".weight"}, {outputs, inputs}), weights_.linear_dtype);
  }

  struct Part {
    std::string name;
    std::int64_t outputs;
    TensorView* view;
  };
  // Linear weights that share their input: away from the CPU they lie one after another.
  void linear_group(std::initializer_list<Part> parts, std::int64_t inputs) {
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

  // Training checkpoints may hold the embedding in two halves.
  TensorView embedding(const std::string& name, const Shape& shape) {
    const std::string base = prefix_ + name;
    return join_or_take({base + ".weight"}, base + ".embedding", shape, std::nullopt);
  }

  // The heads stand under either layout's name; both may be there.
  TensorView head(const std::string& name, const Shape& shape) {
    const std::string base = "audio_decoder_proj." + name;
    return join_or_take({name + ".weight", base + ".weight"}, base + ".linear", shape,
                        weights_.linear_dtype);
  }
  // A head that is not used: checked and counted, but not brought to the device.
  void optional_head(const std::string& name, const Shape& shape) {
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

  // Names are checked only now, so that a message can list what is missing together.
  void finish() const {
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

 private:
  // The stored tensor, counted; empty when it is missing.
  TensorView take(const std::vector<std::string>& names, const Shape& shape) {
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
  TensorView adapted(const std::string& stored_name, const TensorView& stored) {
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

  std::string transformers_name(const std::string& stored) const {
    if (stored.find("_lm_head.") != std::string::npos) return stored;
    const std::string name = stored.substr(prefix_.size());
    if (name == "audio_codebook_embeddings.weight") {
      return "model.embed_audio_tokens.embed_audio_tokens.weight";
    }
    return "model." + name;
  }

  TensorView join_or_take(const std::vector<std::string>& names, const std::string& half,
                          const Shape& shape, std::optional<DType> dtype) {
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
  TensorView join(const std::string& frozen, const std::string& trainable, const Shape& shape,
                  std::optional<DType> dtype) {
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
  TensorView place(const TensorView& stored, std::optional<DType> dtype = std::nullopt) {
    if (!stored || device_.kind() == DeviceKind::kCpu) return stored;
    weights_.owned.emplace_back(device_, placed_dtype(stored, dtype), stored.shape);
    const TensorView& copy = weights_.owned.back().view();
    upload(stored, copy);
    return copy;
  }

  DType placed_dtype(const TensorView& stored, std::optional<DType> dtype) const {
    return device_.kind() == DeviceKind::kCpu ? stored.dtype : dtype.value_or(stored.dtype);
  }

  // Copies to the device; bf16 is widened when `to` is fp32.
  void upload(const TensorView& from, const TensorView& to) {
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

  void count(const TensorView& tensor) {
    weights_.num_parameters += tensor.size();
    const std::string dtype = name_of(tensor.dtype);
    weights_.dtype = weights_.dtype.empty() || weights_.dtype == dtype ? dtype : "mixed";
  }

  std::string prefix_;
  const Checkpoint& checkpoint_;
  Device& device_;
  ModelWeights& weights_;
  Adapter* adapter_;
  std::vector<char> scratch_;
  std::set<std::string> used_;
  std::vector<std::string> missing_;
};

PathWeights load_path(Loader& loader, const std::string& layer, const std::string& modality,
                      std::int64_t hidden, std::int64_t ffn) {
  PathWeights path;
  path.input_norm = loader.backbone(layer + modality + "input_layernorm", {hidden});
  path.post_attention_norm =
      loader.backbone(layer + modality + "post_attention_layernorm", {hidden});
  loader.linear_group({{layer + modality + "mlp.gate_proj", ffn, &path.ffn.gate},
                       {layer + modality + "mlp.up_proj", ffn, &path.ffn.up}},
                      hidden);
  path.ffn.down = loader.linear(layer + modality + "mlp.down_proj", hidden, ffn);
  return path;
}

LayerWeights load_layer(Loader& loader, const ModelConfig& config, std::int32_t index) {
  const std::string name = "layers." + std::to_string(index) + ".";
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t q_dim = std::int64_t{config.num_heads} * config.head_dim;
  const std::int64_t kv_dim = std::int64_t{config.num_kv_heads} * config.head_dim;
  LayerWeights layer;
  loader.linear_group({{name + "self_attn.q_proj", q_dim, &layer.q},
                       {name + "self_attn.k_proj", kv_dim, &layer.k},
                       {name + "self_attn.v_proj", kv_dim, &layer.v}},
                      hidden);
  layer.o = loader.linear(name + "self_attn.o_proj", hidden, q_dim);
  layer.text = load_path(loader, name, "", hidden, config.text_ffn);
  layer.audio = load_path(loader, name, "audio_", hidden, config.audio_ffn);
  return layer;
}

// The usual sign of a configuration that belongs to another checkpoint.
void check_codebooks(const ModelConfig& config, const Checkpoint& checkpoint,
                     const std::string& table) {
  if (!checkpoint.contains(table)) return;  // named with everything else that is missing
  const Shape& shape = checkpoint.shape(table);
  const std::int64_t rows = std::int64_t{config.num_codebooks} * config.codebook_vocab;
  check(!shape.empty() && shape[0] == rows, checkpoint.place(table).c_str(), "expected ", rows,
        " rows (", config.num_codebooks, " codebooks of ", config.codebook_vocab,
        " ids by config.json), got ", to_string(shape));
}

}  // namespace

ModelWeights load_weights(const ModelConfig& config, std::shared_ptr<const Checkpoint> checkpoint,
                          Device& device, Adapter* adapter) {
  ModelWeights weights;
  weights.checkpoint = std::move(checkpoint);
  weights.linear_dtype = linear_dtype_of(*weights.checkpoint);
  Loader loader(config, *weights.checkpoint, device, weights, adapter);
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t audio_rows = std::int64_t{config.num_codebooks} * config.codebook_vocab;
  weights.embed_tokens = loader.embedding("embed_tokens", {config.text_vocab, hidden});
  const bool original = config.layout == Layout::kOriginal;
  const std::string columns =
      original ? "audio_codebook_embeddings" : "embed_audio_tokens.embed_audio_tokens";
  check_codebooks(config, *weights.checkpoint, (original ? "" : "model.") + columns + ".weight");
  weights.embed_columns = loader.backbone(columns, {audio_rows, hidden});
  for (std::int32_t i = 0; i < config.num_layers; ++i) {
    weights.layers.push_back(load_layer(loader, config, i));
  }
  weights.norm = loader.backbone("norm", {hidden});
  weights.audio_head = loader.head("audio_lm_head", {audio_rows, hidden});
  loader.optional_head("text_lm_head", {config.text_vocab, hidden});
  loader.finish();
  return weights;
}

}  // namespace higgs_rt
