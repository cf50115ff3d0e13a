// The decoder's stages, fused where a matrix product has a fast form; elsewhere the default over
// the single operations (ops/stages.cpp).
#include "ops/cuda/checks.h"
#include "ops/cuda/linear_paths.h"

namespace higgs_rt {

namespace {

using bf16 = __nv_bfloat16;

bf16* bf16_of(const TensorView& view) { return static_cast<bf16*>(view.data); }

StreamWeight stream_weight(const TensorView& weight) {
  return {bf16_of(weight), static_cast<int>(weight.dim(0)), static_cast<int>(weight.dim(1))};
}

PlainRows plain_rows(const TensorView& x) { return {bf16_of(x), static_cast<int>(x.dim(0))}; }

NormRows norm_rows(const TensorView& x, const TensorView& norm, float eps) {
  NormRows rows{};
  rows.x = x.as<float>();
  rows.rows = static_cast<int>(x.dim(0));
  rows.audio_norm = norm.data;
  rows.norm_is_bf16 = norm.dtype == DType::kBF16;
  rows.eps = eps;
  return rows;
}

bool addresses_fit(std::initializer_list<const TensorView*> views) {
  for (const TensorView* view : views) {
    if (reinterpret_cast<std::uintptr_t>(view->data) % 16 != 0) return false;
  }
  return true;
}

// The sizes of attention_input, found once its shapes are right.
struct QkvShape {
  std::int64_t rows, size, heads, kv_heads, dim;
  std::int64_t outputs() const { return (heads + 2 * kv_heads) * dim; }
};

QkvShape check_attention_input(const TensorView& x, const Ops::AttentionInput& input,
                               const TensorView& q, const TensorView& k_cache,
                               const TensorView& v_cache) {
  constexpr const char* kOp = "attention_input";
  const QkvShape s = {x.dim(0), x.dim(1), q.dim(1), k_cache.dim(1), q.dim(2)};
  expect_cuda(kOp, "x", x, DType::kF32, {s.rows, s.size});
  expect_cuda(kOp, "q", q, DType::kBF16, {s.rows, s.heads, s.dim});
  expect_cuda(kOp, "q_weight", input.q_weight, DType::kBF16, {s.heads * s.dim, s.size});
  expect_cuda(kOp, "k_weight", input.k_weight, DType::kBF16, {s.kv_heads * s.dim, s.size});
  expect_cuda(kOp, "v_weight", input.v_weight, DType::kBF16, {s.kv_heads * s.dim, s.size});
  expect_cuda(kOp, "k_cache", k_cache, DType::kBF16, {k_cache.dim(0), s.kv_heads, s.dim});
  expect_cuda(kOp, "v_cache", v_cache, DType::kBF16, k_cache.shape);
  expect_cuda(kOp, "position", input.position, DType::kI32, {s.rows});
  expect_cuda(kOp, "slot", input.slot, DType::kI32, {s.rows});
  expect_cuda(kOp, "rope", input.rope, DType::kF32, {input.rope.dim(0), s.dim / 2, 2});
  expect_cuda(kOp, "normed", input.normed, DType::kBF16, {s.rows, s.size});
  expect_cuda_real(kOp, "text_norm", input.text_norm, {s.size});
  expect_cuda(kOp, "audio_norm", input.audio_norm, input.text_norm.dtype, {s.size});
  return s;
}

QkvOutput qkv_output(const Ops::AttentionInput& input, const QkvShape& shape, const TensorView& q,
                     const TensorView& k_cache, const TensorView& v_cache) {
  return {bf16_of(q),
          bf16_of(k_cache),
          bf16_of(v_cache),
          input.position.as<std::int32_t>(),
          input.slot.as<std::int32_t>(),
          input.rope.as<float>(),
          static_cast<int>(shape.heads),
          static_cast<int>(shape.kv_heads),
          static_cast<int>(shape.dim)};
}

// Whether q, k, v are one matrix of the type and place that the fast forms take.
bool fast_attention_input(const TensorView& x, const Ops::AttentionInput& input,
                          const TensorView& q, const TensorView& k_cache,
                          const TensorView& v_cache) {
  return input.lora.empty() && input.q_weight.dtype == DType::kBF16 &&
         follows(input.q_weight, input.k_weight) && follows(input.k_weight, input.v_weight) &&
         q.dtype == DType::kBF16 && q.dim(2) % 2 == 0 &&
         input.text_norm.dtype == input.audio_norm.dtype &&
         addresses_fit(
             {&x, &q, &k_cache, &v_cache, &input.normed, &input.text_norm, &input.audio_norm});
}

}  // namespace

void CudaOps::attention_input(const TensorView& x, const AttentionInput& input, const TensorView& q,
                              const TensorView& k_cache, const TensorView& v_cache) {
  constexpr const char* kOp = "attention_input";
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "q", q, 3);
  expect_cuda_rank(kOp, "k_cache", k_cache, 3);
  const std::int64_t rows = x.dim(0), text = input.num_text_rows;
  if (rows == 0) return;
  if (!fast_attention_input(x, input, q, k_cache, v_cache)) {
    return Ops::attention_input(x, input, q, k_cache, v_cache);
  }
  const QkvShape shape = check_attention_input(x, input, q, k_cache, v_cache);
  const TensorView weight = join_rows(input.q_weight, shape.outputs());
  const LinearPath path = linear_->choose(rows, weight, shape.dim, input.kind, PromptEnd::kQkv);
  if (path == LinearPath::kPlain || (path == LinearPath::kCublasLt && shape.dim % 16 != 0)) {
    return Ops::attention_input(x, input, q, k_cache, v_cache);
  }
  device_.activate();
  const QkvOutput out = qkv_output(input, shape, q, k_cache, v_cache);
  if (path == LinearPath::kStream) {
    NormRows from = norm_rows(x, input.audio_norm, input.eps);
    from.text_norm = input.text_norm.data;
    from.text_rows = static_cast<int>(text);
    check_cuda(
        launch_stream_qkv(linear_->stream(), stream_weight(weight), from, out, device_.stream()),
        kOp, "the launch");
    return;
  }
  const TensorView& y = input.normed;
  if (text != 0) rms_norm(x.first(text), input.text_norm, input.eps, y.first(text));
  if (rows != text) {
    rms_norm(x.slice(text, rows - text), input.audio_norm, input.eps, y.slice(text, rows - text));
  }
  if (path == LinearPath::kWide) {
    WideOutput end{};
    end.end = WideEnd::kQkv, end.qkv = out;
    check_cuda(linear_->wide(y, weight, end), kOp, "the launch");
    return;
  }
  if (path == LinearPath::kPrompt) {
    check_cuda(launch_prompt_qkv(stream_weight(weight), plain_rows(y), out, device_.stream()), kOp,
               "the launch");
    return;
  }
  check_cuda(linear_->joined_qkv(y, weight, out), kOp, "the launch");
}

void CudaOps::ffn_input(const TensorView& x, const FfnInput& input, const TensorView& out) {
  constexpr const char* kOp = "ffn_input";
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "out", out, 2);
  const std::int64_t rows = x.dim(0), size = x.dim(1), width = out.dim(1);
  if (rows == 0) return;
  if (!input.lora.empty() || out.dtype != DType::kBF16 || input.gate_weight.dtype != DType::kBF16 ||
      !follows(input.gate_weight, input.up_weight) ||
      !addresses_fit({&x, &out, &input.normed, &input.norm})) {
    return Ops::ffn_input(x, input, out);
  }
  expect_cuda(kOp, "x", x, DType::kF32, {rows, size});
  expect_cuda(kOp, "out", out, DType::kBF16, {rows, width});
  expect_cuda(kOp, "gate_weight", input.gate_weight, DType::kBF16, {width, size});
  expect_cuda(kOp, "up_weight", input.up_weight, DType::kBF16, {width, size});
  expect_cuda(kOp, "normed", input.normed, DType::kBF16, {rows, size});
  expect_cuda_real(kOp, "norm", input.norm, {size});
  const TensorView weight = join_rows(input.gate_weight, 2 * width);
  const LinearPath path = linear_->choose(rows, weight, 0, input.kind, PromptEnd::kSwiglu);
  if (path == LinearPath::kPlain || (path != LinearPath::kStream && width % 8 != 0)) {
    return Ops::ffn_input(x, input, out);
  }
  device_.activate();
  if (path == LinearPath::kStream) {
    check_cuda(
        launch_stream_swiglu(linear_->stream(), stream_weight(weight),
                             norm_rows(x, input.norm, input.eps), bf16_of(out), device_.stream()),
        kOp, "the launch");
    return;
  }
  rms_norm(x, input.norm, input.eps, input.normed);
  if (path == LinearPath::kWide) {
    WideOutput end{};
    end.end = WideEnd::kSwiglu, end.out = out.data;
    check_cuda(linear_->wide(input.normed, weight, end), kOp, "the launch");
    return;
  }
  if (path == LinearPath::kPrompt) {
    check_cuda(launch_prompt_swiglu(stream_weight(weight), plain_rows(input.normed), bf16_of(out),
                                    device_.stream()),
               kOp, "the launch");
    return;
  }
  check_cuda(linear_->joined_swiglu(input.normed, weight, out), kOp, "the launch");
}

void CudaOps::head(const TensorView& x, const HeadInput& input, const TensorView& out) {
  constexpr const char* kOp = "head";
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "rows", input.rows, 1);
  expect_cuda_rank(kOp, "weight", input.weight, 2);
  const std::int64_t rows = input.rows.dim(0), size = x.dim(1);
  if (rows == 0) return;
  if (input.normed.dtype != DType::kBF16 || !addresses_fit({&x, &input.norm, &out}) ||
      linear_->choose(rows, input.weight, 0, input.kind) != LinearPath::kStream) {
    return Ops::head(x, input, out);
  }
  expect_cuda(kOp, "x", x, DType::kF32, {x.dim(0), size});
  expect_cuda(kOp, "rows", input.rows, DType::kI32, {rows});
  expect_cuda(kOp, "weight", input.weight, DType::kBF16, {input.weight.dim(0), size});
  expect_cuda(kOp, "out", out, DType::kF32, {rows, input.weight.dim(0)});
  expect_cuda_real(kOp, "norm", input.norm, {size});
  device_.activate();
  NormRows from = norm_rows(x, input.norm, input.eps);
  from.rows = static_cast<int>(rows);
  from.gather = input.rows.as<std::int32_t>();
  check_cuda(launch_stream_store(linear_->stream(), stream_weight(input.weight), from,
                                 out.as<float>(), device_.stream()),
             kOp, "the launch");
}

}  // namespace higgs_rt
