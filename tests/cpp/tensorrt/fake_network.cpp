#include "tensorrt/fake_network.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "batch/step_batch.h"
#include "core/check.h"
#include "model/rope_table.h"

namespace higgs_rt::testing {

namespace {

constexpr const char* kWhere = "fake_plan";

const std::int32_t* ints(const Bound& bound, const char* name) {
  return bound.at(name).as<std::int32_t>();
}

void check_range(const Bound& bound, const char* name, std::int64_t low, std::int64_t end) {
  const TensorView& view = bound.at(name);
  for (std::int64_t i = 0; i < view.size(); ++i) {
    const std::int32_t value = view.as<std::int32_t>()[i];
    check_internal(value >= low && value < end, kWhere, "expected ", name, "[", i, "] in [", low,
                   ", ", end, "), got ", value);
  }
}

}  // namespace

std::map<std::string, TensorView*> weight_names(ModelWeights& weights) {
  std::map<std::string, TensorView*> names = {
      {"embed_tokens.weight", &weights.embed_tokens},
      {"audio_codebook_embeddings.weight", &weights.embed_columns},
      {"norm.weight", &weights.norm},
      {"audio_decoder_proj.audio_lm_head.weight", &weights.audio_head}};
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    const std::string at = "layers." + std::to_string(i) + ".";
    names[at + "self_attn.q_proj.weight"] = &layer.q;
    names[at + "self_attn.k_proj.weight"] = &layer.k;
    names[at + "self_attn.v_proj.weight"] = &layer.v;
    names[at + "self_attn.o_proj.weight"] = &layer.o;
    for (const bool audio : {false, true}) {
      PathWeights& path = audio ? layer.audio : layer.text;
      const std::string prefix = at + (audio ? "audio_" : "");
      names[prefix + "input_layernorm.weight"] = &path.input_norm;
      names[prefix + "post_attention_layernorm.weight"] = &path.post_attention_norm;
      names[prefix + "mlp.gate_proj.weight"] = &path.ffn.gate;
      names[prefix + "mlp.up_proj.weight"] = &path.ffn.up;
      names[prefix + "mlp.down_proj.weight"] = &path.ffn.down;
    }
  }
  return names;
}

FakeNetwork::FakeNetwork(const ModelConfig& config, ModelWeights weights, std::int32_t capacity,
                         Ops& ops)
    : config_(config),
      weights_(std::move(weights)),
      weights_are_bound_(weights_.layers.empty()),
      capacity_(capacity),
      ops_(ops) {
  weights_.layers.resize(static_cast<std::size_t>(config.num_layers));
  const auto table = rope_table(config.rope, config.head_dim, capacity);
  rope_ = Tensor(ops.device(), DType::kF32, {capacity, config.head_dim / 2, 2});
  std::memcpy(rope_.view().data, table.data(), rope_.view().bytes());
}

Tensor FakeNetwork::floats(std::int64_t rows, std::int64_t width) {
  static const auto device = make_cpu_device();  // the plan's own memory, not the engine's device
  return {*device, DType::kF32, {rows, width}};
}

void FakeNetwork::check_rules(const Bound& bound) const {
  const std::int64_t text = bound.at("text_ids").dim(0);
  const std::int64_t audio = bound.at("audio_ids").dim(0);
  const std::int64_t slots = bound.at("row_index").dim(0);
  const std::int64_t positions = bound.at("row_index").dim(1);
  check_range(bound, "text_ids", 0, config_.text_vocab + bound.at("table_rows").dim(0));
  for (std::int64_t i = 0; i < audio; ++i) {
    const std::int32_t id = ints(bound, "audio_ids")[i];
    const bool fed = id >= StepBatch::kFeedback;
    const std::int64_t row = fed ? id - StepBatch::kFeedback : id;
    const std::int64_t rows = bound.at(fed ? "last_columns" : "columns").dim(0);
    check_internal(row >= 0 && row < rows, kWhere, "expected audio_ids[", i, "] below ", rows,
                   ", got row ", row);
  }
  check_range(bound, "row_index", 0, text + audio);
  check_range(bound, "position", 0, capacity_);
  check_range(bound, "text_place", 0, slots * positions);
  check_range(bound, "audio_place", 0, slots * positions);
  check_range(bound, "write_index", 0, capacity_ - positions + 1);
  check_range(bound, "kv_length", 1, capacity_ + 1);
  check_range(bound, "logit_rows", 0, text + audio);
}

void FakeNetwork::run(const Bound& bound) {
  check_rules(bound);
  if (weights_are_bound_) {
    for (const auto& [name, place] : weight_names(weights_)) *place = bound.at(name);
  }
  const std::int64_t text = bound.at("text_ids").dim(0);
  const std::int64_t rows = text + bound.at("audio_ids").dim(0);
  const Tensor hidden = floats(rows, config_.hidden_size);
  embed(bound, hidden);
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    attention(bound, i, hidden);
    feed_forward(weights_.layers[i].text, hidden.view().first(text));
    feed_forward(weights_.layers[i].audio, hidden.view().slice(text, rows - text));
  }
  const std::int64_t wanted = bound.at("logit_rows").dim(0);
  const Tensor last = floats(wanted, config_.hidden_size);
  ops_.gather_rows(hidden, bound.at("logit_rows"), last);
  ops_.rms_norm(last, weights_.norm, config_.rms_norm_eps, last);
  TensorView logits = bound.at("logits");
  logits.shape = {wanted, logits.dim(1) * logits.dim(2)};
  ops_.linear(last, weights_.audio_head, logits);
}

void FakeNetwork::embed(const Bound& bound, const TensorView& hidden) {
  const std::int64_t text = bound.at("text_ids").dim(0);
  const std::int64_t audio = bound.at("audio_ids").dim(0);
  if (text != 0) {
    ops_.embed_text(weights_.embed_tokens, bound.at("table_rows"), bound.at("text_ids"),
                    hidden.first(text));
  }
  if (audio == 0) return;
  Tensor columns = floats(audio, config_.num_codebooks);
  const TensorView ids{columns.view().data, DType::kI32, columns.view().shape};
  ops_.gather_columns(bound.at("audio_ids"), bound.at("columns"), bound.at("last_columns"), ids);
  ops_.embed_columns(weights_.embed_columns, ids, hidden.slice(text, audio));
}

void FakeNetwork::attention(const Bound& bound, std::size_t layer, const TensorView& hidden) {
  const LayerWeights& weights = weights_.layers[layer];
  const std::int64_t text = bound.at("text_ids").dim(0);
  const std::int64_t audio = hidden.dim(0) - text;
  const std::int64_t slots = bound.at("row_index").dim(0);
  const std::int64_t places = bound.at("row_index").size();
  const auto flat = [&](const char* name) {
    return TensorView{bound.at(name).data, DType::kI32, {places}};
  };
  const Tensor normed = floats(hidden.dim(0), config_.hidden_size);
  if (text != 0) {
    ops_.rms_norm(hidden.first(text), weights.text.input_norm, config_.rms_norm_eps,
                  normed.view().first(text));
  }
  if (audio != 0) {
    ops_.rms_norm(hidden.slice(text, audio), weights.audio.input_norm, config_.rms_norm_eps,
                  normed.view().slice(text, audio));
  }
  const Tensor grid = floats(places, config_.hidden_size);
  ops_.gather_rows(normed, flat("row_index"), grid);
  const auto project = [&](const TensorView& weight, std::int64_t heads, bool rotate) {
    Tensor out = floats(places, heads * config_.head_dim);
    ops_.linear(grid, weight, out);
    if (rotate) {
      ops_.rope({out.view().data, DType::kF32, {places, heads, config_.head_dim}}, flat("position"),
                rope_);
    }
    return out;
  };
  const Tensor q = project(weights.q, config_.num_heads, true);
  const std::string name = std::to_string(layer);
  store(bound, project(weights.k, config_.num_kv_heads, true), bound.at("present_k_" + name));
  store(bound, project(weights.v, config_.num_kv_heads, false), bound.at("present_v_" + name));
  const Tensor keys = by_position(bound, bound.at("present_k_" + name));
  const Tensor values = by_position(bound, bound.at("present_v_" + name));
  std::vector<std::int32_t> sequence, position, table;
  for (std::int64_t place = 0; place < places; ++place) {
    const auto slot = static_cast<std::int32_t>(place / (places / slots));
    sequence.push_back(slot);
    position.push_back(
        std::min(ints(bound, "position")[place], ints(bound, "kv_length")[slot] - 1));
  }
  for (std::int32_t slot = 0; slot < slots; ++slot) table.push_back(slot);
  const Tensor attended = floats(places, q.view().dim(1));
  const Shape heads = {places, config_.num_heads, config_.head_dim};
  const Shape cache = {slots * capacity_, config_.num_kv_heads, config_.head_dim};
  ops_.attention({q.view().data, DType::kF32, heads}, {keys.view().data, DType::kF32, cache},
                 {values.view().data, DType::kF32, cache},
                 {{sequence.data(), DType::kI32, {places}},
                  {position.data(), DType::kI32, {places}},
                  {table.data(), DType::kI32, {slots, 1}},
                  {capacity_, static_cast<std::int32_t>(slots)}},
                 {attended.view().data, DType::kF32, heads});
  for (const bool is_audio : {false, true}) {
    const std::int64_t count = is_audio ? audio : text;
    if (count == 0) continue;
    const Tensor own = floats(count, q.view().dim(1));
    ops_.gather_rows(attended, bound.at(is_audio ? "audio_place" : "text_place"), own);
    ops_.linear(own, weights.o, hidden.slice(is_audio ? text : 0, count), /*accumulate=*/true);
  }
}

// update [B S, Hk D] to the new positions of cache [B, Hk, M, D], padding included.
void FakeNetwork::store(const Bound& bound, const TensorView& update,
                        const TensorView& cache) const {
  const std::int64_t slots = bound.at("row_index").dim(0);
  const std::int64_t positions = bound.at("row_index").dim(1);
  const std::int64_t heads = config_.num_kv_heads;
  const std::int64_t dim = config_.head_dim;
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    for (std::int64_t s = 0; s < positions; ++s) {
      const std::int64_t at = ints(bound, "write_index")[slot] + s;
      for (std::int64_t head = 0; head < heads; ++head) {
        std::copy_n(update.as<float>() + ((slot * positions + s) * heads + head) * dim, dim,
                    cache.as<float>() + ((slot * heads + head) * capacity_ + at) * dim);
      }
    }
  }
}

// cache [B, Hk, M, D] as [B M, Hk, D]; what lies beyond kv_length is NaN, as nothing may read it.
Tensor FakeNetwork::by_position(const Bound& bound, const TensorView& cache) const {
  const std::int64_t slots = bound.at("row_index").dim(0);
  const std::int64_t heads = config_.num_kv_heads;
  const std::int64_t dim = config_.head_dim;
  static const auto device = make_cpu_device();
  Tensor out(*device, DType::kF32, {slots * capacity_, heads * dim});
  auto* values = out.as<float>();
  std::fill_n(values, out.view().size(), std::numeric_limits<float>::quiet_NaN());
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    for (std::int64_t p = 0; p < ints(bound, "kv_length")[slot]; ++p) {
      for (std::int64_t head = 0; head < heads; ++head) {
        std::copy_n(cache.as<float>() + ((slot * heads + head) * capacity_ + p) * dim, dim,
                    values + ((slot * capacity_ + p) * heads + head) * dim);
      }
    }
  }
  return out;
}

void FakeNetwork::feed_forward(const PathWeights& path, const TensorView& hidden) {
  const std::int64_t rows = hidden.dim(0);
  if (rows == 0) return;
  const std::int64_t width = path.ffn.gate.dim(0);
  const Tensor normed = floats(rows, config_.hidden_size);
  const Tensor gate = floats(rows, width);
  const Tensor up = floats(rows, width);
  ops_.rms_norm(hidden, path.post_attention_norm, config_.rms_norm_eps, normed);
  ops_.linear(normed, path.ffn.gate, gate);
  ops_.linear(normed, path.ffn.up, up);
  ops_.swiglu(gate, up, gate);
  ops_.linear(gate, path.ffn.down, hidden, /*accumulate=*/true);
}

}  // namespace higgs_rt::testing
