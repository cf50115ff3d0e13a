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

}  // namespace

Decoder::Decoder(const ModelConfig& config, ModelWeights weights, const Limits& limits, Ops& ops)
    : config_(config), weights_(std::move(weights)), ops_(ops) {
  Device& device = ops.device();
  const std::int64_t rows = limits.max_rows;
  const std::int64_t q_dim = std::int64_t{config.num_heads} * config.head_dim;
  const std::int64_t kv_dim = std::int64_t{config.num_kv_heads} * config.head_dim;
  const std::int64_t ffn = std::max(config.text_ffn, config.audio_ffn);
  const auto floats = [&](std::int64_t width) {
    return Tensor(device, DType::kF32, {rows, width});
  };
  hidden_ = floats(config.hidden_size);
  normed_ = floats(config.hidden_size);
  last_ = floats(config.hidden_size);
  q_ = floats(q_dim);
  attended_ = floats(q_dim);
  k_ = floats(kv_dim);
  v_ = floats(kv_dim);
  gate_ = floats(ffn);
  up_ = floats(ffn);
  logits_ = floats(std::int64_t{config.num_codebooks} * config.codebook_vocab);
  columns_ = Tensor(device, DType::kI32, {rows, config.num_codebooks});
  const auto table = rope_table(config.rope, config.head_dim, limits.max_positions);
  rope_ = Tensor(device, DType::kF32, {limits.max_positions, config.head_dim / 2, 2});
  device.copy_from_host(rope_.view().data, table.data(), table.size() * sizeof(float));
}

TensorView Decoder::forward(const DecoderBatch& batch, const KvCache& cache) {
  const Split split{batch.num_text_rows, batch.ids.dim(0)};
  embed(batch, split);
  const TensorView x = hidden_.view().first(split.rows);
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    norm(layer.text.input_norm, layer.audio.input_norm, split);
    attention(layer, batch, split, cache.keys[i], cache.values[i], cache.layout);
    norm(layer.text.post_attention_norm, layer.audio.post_attention_norm, split);
    feed_forward(layer.text.ffn, 0, split.text);
    feed_forward(layer.audio.ffn, split.text, split.rows - split.text);
  }
  const std::int64_t wanted = batch.logit_rows.dim(0);
  const TensorView last = last_.view().first(wanted);
  const TensorView logits = logits_.view().first(wanted);
  if (wanted != 0) {
    ops_.gather_rows(x, batch.logit_rows, last);
    ops_.rms_norm(last, weights_.norm, config_.rms_norm_eps, last);
    ops_.linear(last, weights_.audio_head, logits);
  }
  return as_shape(logits, {wanted, config_.num_codebooks, config_.codebook_vocab});
}

void Decoder::embed(const DecoderBatch& batch, const Split& split) {
  const TensorView& x = hidden_.view();
  if (split.text != 0) {
    ops_.embed_text(weights_.embed_tokens, batch.table_rows, batch.ids.first(split.text),
                    x.first(split.text));
  }
  const std::int64_t audio = split.rows - split.text;
  if (audio != 0) {
    const TensorView columns = columns_.view().first(audio);
    ops_.gather_columns(batch.ids.slice(split.text, audio), batch.columns, batch.last_columns,
                        columns);
    ops_.embed_columns(weights_.embed_columns, columns, x.slice(split.text, audio));
  }
}

void Decoder::norm(const TensorView& text_weight, const TensorView& audio_weight,
                   const Split& split) {
  const TensorView& x = hidden_.view();
  const TensorView& out = normed_.view();
  const std::int64_t audio = split.rows - split.text;
  if (split.text != 0) {
    ops_.rms_norm(x.first(split.text), text_weight, config_.rms_norm_eps, out.first(split.text));
  }
  if (audio != 0) {
    ops_.rms_norm(x.slice(split.text, audio), audio_weight, config_.rms_norm_eps,
                  out.slice(split.text, audio));
  }
}

void Decoder::attention(const LayerWeights& layer, const DecoderBatch& batch, const Split& split,
                        const TensorView& keys, const TensorView& values, const KvLayout& layout) {
  const std::int64_t rows = split.rows;
  const TensorView y = normed_.view().first(rows);
  const TensorView q = q_.view().first(rows);
  const TensorView k = k_.view().first(rows);
  const TensorView v = v_.view().first(rows);
  ops_.linear(y, layer.q, q);
  ops_.linear(y, layer.k, k);
  ops_.linear(y, layer.v, v);
  const TensorView q_heads = as_shape(q, {rows, config_.num_heads, config_.head_dim});
  const TensorView k_heads = as_shape(k, {rows, config_.num_kv_heads, config_.head_dim});
  const TensorView v_heads = as_shape(v, {rows, config_.num_kv_heads, config_.head_dim});
  ops_.rope(q_heads, batch.position, rope_);
  ops_.rope(k_heads, batch.position, rope_);
  ops_.store_kv(k_heads, v_heads, batch.slot, keys, values);
  const TensorView out = attended_.view().first(rows);
  ops_.attention(q_heads, keys, values, {batch.sequence, batch.position, batch.block_table, layout},
                 as_shape(out, q_heads.shape));
  ops_.linear(out, layer.o, hidden_.view().first(rows), /*accumulate=*/true);
}

void Decoder::feed_forward(const FfnWeights& ffn, std::int64_t begin, std::int64_t count) {
  if (count == 0) return;
  const TensorView y = normed_.view().slice(begin, count);
  const std::int64_t width = ffn.gate.dim(0);
  const TensorView gate = as_shape(gate_, {count, width});
  const TensorView up = as_shape(up_, {count, width});
  ops_.linear(y, ffn.gate, gate);
  ops_.linear(y, ffn.up, up);
  ops_.swiglu(gate, up, gate);
  ops_.linear(gate, ffn.down, hidden_.view().slice(begin, count), /*accumulate=*/true);
}

}  // namespace higgs_rt
