// What the stages of ops.h mean, in terms of the single operations.
#include "ops/ops.h"

namespace higgs_rt {

namespace {

// [R, heads, D] as [R, heads D].
TensorView as_rows(const TensorView& heads) {
  return {heads.data, heads.dtype, {heads.dim(0), heads.dim(1) * heads.dim(2)}};
}

}  // namespace

void Ops::plan_attention(const TensorView&, const TensorView&, const AttentionBatch&) {}

void Ops::embed_audio(const ColumnInput& input, const TensorView& out) {
  gather_columns(input.index, input.given, input.last, input.columns);
  embed_columns(input.table, input.columns, out);
}

void Ops::attention_input(const TensorView& x, const AttentionInput& input, const TensorView& q,
                          const TensorView& k_cache, const TensorView& v_cache) {
  const std::int64_t text = input.num_text_rows, audio = x.dim(0) - text;
  const TensorView& y = input.normed;
  if (text != 0) rms_norm(x.first(text), input.text_norm, input.eps, y.first(text));
  if (audio != 0) {
    rms_norm(x.slice(text, audio), input.audio_norm, input.eps, y.slice(text, audio));
  }
  linear(y, input.q_weight, as_rows(q), false, input.kind);
  linear(y, input.k_weight, as_rows(input.k), false, input.kind);
  linear(y, input.v_weight, as_rows(input.v), false, input.kind);
  if (!input.lora.empty()) {
    const TensorView outs[] = {as_rows(q), as_rows(input.k), as_rows(input.v)};
    add_lora(y, input.lora, input.lora_rows, outs);
  }
  rope(q, input.position, input.rope);
  rope(input.k, input.position, input.rope);
  store_kv(input.k, input.v, input.slot, k_cache, v_cache);
}

void Ops::ffn_input(const TensorView& x, const FfnInput& input, const TensorView& out) {
  rms_norm(x, input.norm, input.eps, input.normed);
  linear(input.normed, input.gate_weight, out, false, input.kind);
  linear(input.normed, input.up_weight, input.up, false, input.kind);
  if (!input.lora.empty()) {
    const TensorView outs[] = {out, input.up};
    add_lora(input.normed, input.lora, input.lora_rows, outs);
  }
  swiglu(out, input.up, out);
}

void Ops::head(const TensorView& x, const HeadInput& input, const TensorView& out) {
  gather_rows(x, input.rows, input.last);
  rms_norm(input.last, input.norm, input.eps, input.normed);
  linear(input.normed, input.weight, out, false, input.kind);
}

void Ops::residual_unit(const TensorView& x, const ResidualUnit& unit, const TensorView& out) {
  const Conv1d same{1, unit.dilation, unit.dilation * (unit.weight1.dim(2) - 1) / 2, 0};
  snake(x, unit.alpha1, out);
  conv1d(out, unit.weight1, unit.bias1, same, nullptr, unit.work);
  snake(unit.work, unit.alpha2, unit.work);
  conv1d(unit.work, unit.weight2, unit.bias2, {}, &x, out);
}

bool Ops::decode_step(const TensorView&, const DecodeStep&, const TensorView&) { return false; }

}  // namespace higgs_rt
