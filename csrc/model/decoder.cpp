#include "model/decoder.h"

#include <algorithm>

#include "core/check.h"
#include "model/rope_table.h"

namespace higgs_rt {

namespace {

// The first elements of a workspace, seen as `shape`.
TensorView as_shape(const TensorView& memory, Shape shape) {
  TensorView view{memory.data, memory.dtype, std::move(shape)};
  if (view.size() > memory.size()) {
    fail(ErrorCode::kInternal, "decoder", "expected at most ", to_string(memory.shape), ", got ",
         to_string(view.shape));
  }
  return view;
}

// Whether an adapter has factors for one of the weights; otherwise they stay as they are.
bool has_any(std::span<const Ops::Lora> weights) {
  return std::any_of(weights.begin(), weights.end(),
                     [](const Ops::Lora& weight) { return bool{weight.a}; });
}

Ops::AttentionBatch attention_batch(const DecoderBatch& batch, const KvLayout& layout) {
  return {batch.sequence, batch.position, batch.block_table, layout, batch.kind};
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, ModelWeights weights, const Limits& limits, Ops& ops,
                 AdapterSet adapters)
    : config_(config),
      weights_(std::move(weights)),
      adapters_(std::move(adapters)),
      ops_(ops),
      decode_rows_(limits.decode_rows) {
  Device& device = ops.device();
  const std::int64_t rows = limits.max_rows;
  const std::int64_t q_dim = std::int64_t{config.num_heads} * config.head_dim;
  const std::int64_t kv_dim = std::int64_t{config.num_kv_heads} * config.head_dim;
  const std::int64_t ffn = std::max(config.text_ffn, config.audio_ffn);
  const auto matrix = [&](DType dtype, std::int64_t width) {
    return Tensor(device, dtype, {rows, width});
  };
  hidden_ = matrix(DType::kF32, config.hidden_size);
  last_ = matrix(DType::kF32, config.hidden_size);
  logits_ = matrix(DType::kF32, std::int64_t{config.num_codebooks} * config.codebook_vocab);
  normed_ = matrix(limits.activations, config.hidden_size);
  q_ = matrix(limits.activations, q_dim);
  attended_ = matrix(limits.activations, q_dim);
  k_ = matrix(limits.activations, kv_dim);
  v_ = matrix(limits.activations, kv_dim);
  gate_ = matrix(limits.activations, ffn);
  up_ = matrix(limits.activations, ffn);
  columns_ = matrix(DType::kI32, config.num_codebooks);
  if (!adapters_.empty()) lora_ = matrix(DType::kF32, std::int64_t{Ops::kMaxLora} * adapters_.rank);
  const auto table = rope_table(config.rope, config.head_dim, limits.max_positions);
  rope_ = Tensor(device, DType::kF32, {limits.max_positions, config.head_dim / 2, 2});
  device.copy_from_host(rope_.view().data, table.data(), table.size() * sizeof(float));
}

TensorView Decoder::forward(const DecoderBatch& batch, const KvCache& cache) {
  const Split split{batch.num_text_rows, batch.ids.dim(0)};
  embed(batch, split);
  const std::int64_t wanted = batch.logit_rows.dim(0);
  const TensorView logits = logits_.view().first(wanted);
  const TensorView shaped =
      as_shape(logits, {wanted, config_.num_codebooks, config_.codebook_vocab});
  if (decode(batch, cache)) return shaped;
  ops_.plan_attention(as_shape(q_, {split.rows, config_.num_heads, config_.head_dim}),
                      cache.keys.front(), attention_batch(batch, cache.layout));
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    // Of the last layer nobody reads more than the cache at rows whose logits are not wanted.
    const bool last = i + 1 == weights_.layers.size();
    const std::int64_t first = !last ? 0 : wanted == 0 ? split.rows : batch.first_wanted;
    attention(i, batch, split, cache, first);
    if (first == split.rows) break;
    // The first layer's are those of the next step, which is likely to have the same rows.
    const std::size_t next = (i + 1) % weights_.layers.size();
    ops_.expect_attention(cache.keys[next], cache.values[next],
                          attention_batch(batch, cache.layout));
    feed_forward(text_feed(i, split, first), batch);
    feed_forward(audio_feed(i, split, first), batch);
  }
  if (wanted != 0) {
    ops_.head(hidden_.view().first(split.rows),
              {batch.logit_rows, weights_.norm, config_.rms_norm_eps, weights_.audio_head,
               last_.view().first(wanted), normed_.view().first(wanted), batch.kind},
              logits);
  }
  return shaped;
}

bool Decoder::decode(const DecoderBatch& batch, const KvCache& cache) {
  const Split split{batch.num_text_rows, batch.ids.dim(0)};
  if (split.text != 0 || split.rows > ops_.decode_step_rows() || !adapters_.empty()) return false;
  if (batch.kind != RowKind::kDecode || !batch.one_kernel) return false;
  Ops::DecodeStep step;
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    step.layers.push_back({attention_input(i, batch, split), layer.o,
                           ffn_input(audio_feed(i, split, 0), batch), layer.audio.ffn.down,
                           cache.keys[i], cache.values[i]});
  }
  step.batch = attention_batch(batch, cache.layout);
  step.norm = weights_.norm, step.head = weights_.audio_head;
  step.most_rows = decode_rows_;
  return ops_.decode_step(hidden_.view().first(split.rows), step, logits_.view().first(split.rows));
}

Ops::AttentionInput Decoder::attention_input(std::size_t index, const DecoderBatch& batch,
                                             const Split& split) const {
  const Shape kv_shape = {split.rows, config_.num_kv_heads, config_.head_dim};
  const LayerWeights& layer = weights_.layers[index];
  Ops::AttentionInput input = {.num_text_rows = split.text,
                               .text_norm = layer.text.input_norm,
                               .audio_norm = layer.audio.input_norm,
                               .eps = config_.rms_norm_eps,
                               .q_weight = layer.q,
                               .k_weight = layer.k,
                               .v_weight = layer.v,
                               .position = batch.position,
                               .slot = batch.slot,
                               .rope = rope_,
                               .normed = normed_.view().first(split.rows),
                               .k = as_shape(k_, kv_shape),
                               .v = as_shape(v_, kv_shape),
                               .kind = batch.kind};
  if (adapters_.empty() || !has_any(adapters_.layers[index].qkv)) return input;
  input.lora = adapters_.layers[index].qkv;
  input.lora_rows = lora_rows(batch, 0, split.rows);
  return input;
}

Ops::FfnInput Decoder::ffn_input(const Feed& feed, const DecoderBatch& batch) const {
  Ops::FfnInput input = {.norm = feed.path.post_attention_norm,
                         .eps = config_.rms_norm_eps,
                         .gate_weight = feed.path.ffn.gate,
                         .up_weight = feed.path.ffn.up,
                         .normed = normed_.view().first(feed.count),
                         .up = as_shape(up_, {feed.count, feed.width}),
                         .kind = batch.kind};
  if (feed.adapters == nullptr || !has_any(feed.adapters->gate_up)) return input;
  input.lora = feed.adapters->gate_up;
  input.lora_rows = lora_rows(batch, feed.begin, feed.count);
  return input;
}

Ops::LoraRows Decoder::lora_rows(const DecoderBatch& batch, std::int64_t begin,
                                 std::int64_t count) const {
  return {batch.adapter.slice(begin, count), adapters_.scale, lora_};
}

void Decoder::embed(const DecoderBatch& batch, const Split& split) {
  const TensorView& x = hidden_.view();
  if (split.text != 0) {
    ops_.embed_text(weights_.embed_tokens, batch.table_rows, batch.ids.first(split.text),
                    x.first(split.text));
  }
  const std::int64_t audio = split.rows - split.text;
  if (audio != 0) {
    ops_.embed_audio({batch.ids.slice(split.text, audio), batch.columns, batch.last_columns,
                      weights_.embed_columns, columns_.view().first(audio)},
                     x.slice(split.text, audio));
  }
}

// Stores the keys and values of all rows and adds the attention of those from `first` on to the
// residual stream.
void Decoder::attention(std::size_t layer, const DecoderBatch& batch, const Split& split,
                        const KvCache& cache, std::int64_t first) {
  const std::int64_t rows = split.rows - first;
  const TensorView x = hidden_.view().first(split.rows);
  const TensorView &keys = cache.keys[layer], &values = cache.values[layer];
  const TensorView q = as_shape(q_, {split.rows, config_.num_heads, config_.head_dim});
  ops_.attention_input(x, attention_input(layer, batch, split), q, keys, values);
  if (rows == 0) return;
  Ops::AttentionBatch part = attention_batch(batch, cache.layout);
  part.sequence = part.sequence.slice(first, rows);
  part.position = part.position.slice(first, rows);
  const TensorView out = attended_.view().slice(first, rows), to = x.slice(first, rows);
  ops_.attention(q.slice(first, rows), keys, values, part,
                 as_shape(out, {rows, config_.num_heads, config_.head_dim}));
  ops_.linear(out, weights_.layers[layer].o, to, /*accumulate=*/true, batch.kind);
  if (adapters_.empty()) return;
  ops_.add_lora(out, {&adapters_.layers[layer].o, 1}, lora_rows(batch, first, rows), {&to, 1});
}

Decoder::Feed Decoder::text_feed(std::size_t layer, const Split& split, std::int64_t first) const {
  const FfnAdapters* adapters = adapters_.empty() ? nullptr : &adapters_.layers[layer].text;
  const std::int64_t begin = std::min(first, split.text);
  return {weights_.layers[layer].text, adapters, config_.text_ffn, begin, split.text - begin};
}

Decoder::Feed Decoder::audio_feed(std::size_t layer, const Split& split, std::int64_t first) const {
  const FfnAdapters* adapters = adapters_.empty() ? nullptr : &adapters_.layers[layer].audio;
  const std::int64_t begin = std::max(first, split.text);
  return {weights_.layers[layer].audio, adapters, config_.audio_ffn, begin, split.rows - begin};
}

// Adds the FFN of one modality to its rows of the residual stream.
void Decoder::feed_forward(const Feed& feed, const DecoderBatch& batch) {
  if (feed.count == 0) return;
  const TensorView x = hidden_.view().slice(feed.begin, feed.count);
  const TensorView activated = as_shape(gate_, {feed.count, feed.width});
  ops_.ffn_input(x, ffn_input(feed, batch), activated);
  ops_.linear(activated, feed.path.ffn.down, x, /*accumulate=*/true, batch.kind);
  if (feed.adapters == nullptr) return;
  ops_.add_lora(activated, {&feed.adapters->down, 1}, lora_rows(batch, feed.begin, feed.count),
                {&x, 1});
}

}  // namespace higgs_rt
