// A decode step of more rows than one kernel takes, as the products of kernels/wide_linear.h with
// attention between them: a product that adds to the residual stream begins the norm behind it, and
// the product behind that ends it. Against the stages a layer has two kernels less.
#include "ops/cuda/checks.h"
#include "ops/cuda/decode_step.h"
#include "ops/cuda/linear_paths.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "decode_step";
using bf16 = __nv_bfloat16;

bool is_bf16(const TensorView& view, const Shape& shape) {
  return view.dtype == DType::kBF16 && view.shape == shape &&
         reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
}

struct Sizes {
  std::int64_t rows, hidden, ffn, heads, kv_heads, dim;
  std::int64_t q() const { return heads * dim; }
  std::int64_t qkv() const { return (heads + 2 * kv_heads) * dim; }
};

Sizes sizes_of(const TensorView& x, const Ops::DecodeLayer& layer) {
  const std::int64_t dim = layer.k_cache.dim(2);
  return {x.dim(0),
          x.dim(1),
          layer.ffn.gate_weight.dim(0),
          layer.attention.q_weight.dim(0) / dim,
          layer.k_cache.dim(1),
          dim};
}

bool takes_layer(const LinearPaths& paths, const Ops::DecodeLayer& layer, const Sizes& s) {
  const Ops::AttentionInput& in = layer.attention;
  const Ops::FfnInput& ffn = layer.ffn;
  const std::int64_t kv = s.kv_heads * s.dim;
  const auto wide = [&](const TensorView& weight, std::int64_t dim) {
    return paths.takes_wide(s.rows, weight, dim);
  };
  return is_bf16(in.audio_norm, {s.hidden}) && is_bf16(in.q_weight, {s.q(), s.hidden}) &&
         is_bf16(in.k_weight, {kv, s.hidden}) && is_bf16(in.v_weight, {kv, s.hidden}) &&
         follows(in.q_weight, in.k_weight) && follows(in.k_weight, in.v_weight) &&
         is_bf16(layer.o_weight, {s.hidden, s.q()}) && is_bf16(ffn.norm, {s.hidden}) &&
         is_bf16(ffn.gate_weight, {s.ffn, s.hidden}) && is_bf16(ffn.up_weight, {s.ffn, s.hidden}) &&
         follows(ffn.gate_weight, ffn.up_weight) && is_bf16(layer.down_weight, {s.hidden, s.ffn}) &&
         s.ffn % 8 == 0 && is_bf16(layer.k_cache, {layer.k_cache.dim(0), s.kv_heads, s.dim}) &&
         is_bf16(layer.v_cache, layer.k_cache.shape) &&
         wide(join_rows(in.q_weight, s.qkv()), s.dim) && wide(layer.o_weight, 0) &&
         wide(join_rows(ffn.gate_weight, 2 * s.ffn), 0) && wide(layer.down_weight, 0) &&
         is_bf16(in.normed, {s.rows, s.hidden}) && is_bf16(ffn.up, {s.rows, s.ffn});
}

bool takes(const LinearPaths& paths, const TensorView& x, const Ops::DecodeStep& step) {
  if (step.layers.empty()) return false;
  const Sizes s = sizes_of(x, step.layers.front());
  for (const Ops::DecodeLayer& layer : step.layers) {
    if (!takes_layer(paths, layer, s)) return false;
  }
  return is_bf16(step.norm, {s.hidden}) && step.head.dim(1) == s.hidden &&
         paths.takes_wide(s.rows, step.head, 0);
}

void check_step(const TensorView& x, const Ops::DecodeStep& step, const TensorView& out,
                const Sizes& s) {
  const Ops::AttentionInput& input = step.layers.front().attention;
  expect_cuda(kOp, "x", x, DType::kF32, {s.rows, s.hidden});
  expect_cuda(kOp, "out", out, DType::kF32, {s.rows, step.head.dim(0)});
  expect_cuda(kOp, "position", input.position, DType::kI32, {s.rows});
  expect_cuda(kOp, "slot", input.slot, DType::kI32, {s.rows});
  expect_cuda(kOp, "rope", input.rope, DType::kF32, {input.rope.dim(0), s.dim / 2, 2});
}

}  // namespace

// Working memory of such steps.
class WideScratch {
 public:
  WideScratch(CudaDevice& device, const Sizes& s)
      : q_(device, DType::kBF16, {kWideMaxRows, s.heads, s.dim}),
        attended_(device, DType::kBF16, {kWideMaxRows, s.heads, s.dim}),
        squares_(device, DType::kF32, {wide_tiles(static_cast<int>(s.hidden)), kWideMaxRows}) {}

  bool fits(const Sizes& s) const {
    return q_.view().dim(1) == s.heads && q_.view().dim(2) == s.dim &&
           squares_.view().dim(0) == wide_tiles(static_cast<int>(s.hidden));
  }
  TensorView q(std::int64_t rows) const { return q_.view().first(rows); }
  TensorView attended(std::int64_t rows) const { return attended_.view().first(rows); }
  float* squares() const { return squares_.view().as<float>(); }

 private:
  Tensor q_, attended_, squares_;
};

namespace {

// The products of a step in their order.
class WideProducts {
 public:
  WideProducts(LinearPaths& paths, const TensorView& x, const Ops::DecodeStep& step,
               const WideScratch& scratch, const Sizes& sizes)
      : paths_(paths), x_(x), step_(step), scratch_(scratch), sizes_(sizes) {}

  void qkv(std::size_t i) const {
    const Ops::DecodeLayer& layer = step_.layers[i];
    const Ops::AttentionInput& in = layer.attention;
    WideOutput to{};
    to.end = WideEnd::kQkv;
    to.qkv = {static_cast<bf16*>(scratch_.q(sizes_.rows).data),
              static_cast<bf16*>(layer.k_cache.data),
              static_cast<bf16*>(layer.v_cache.data),
              in.position.as<std::int32_t>(),
              in.slot.as<std::int32_t>(),
              in.rope.as<float>(),
              static_cast<int>(sizes_.heads),
              static_cast<int>(sizes_.kv_heads),
              static_cast<int>(sizes_.dim)};
    launch(normed(), join_rows(in.q_weight, sizes_.qkv()), i == 0 ? WideFactors{} : factors(), to);
  }
  void o(std::size_t i) const {
    const Ops::DecodeLayer& layer = step_.layers[i];
    const TensorView attended = scratch_.attended(sizes_.rows);
    launch({attended.data, DType::kBF16, {sizes_.rows, sizes_.q()}}, layer.o_weight, {},
           added(layer.ffn.norm));
  }
  void gate_up(std::size_t i) const {
    const Ops::FfnInput& ffn = step_.layers[i].ffn;
    WideOutput to{};
    to.end = WideEnd::kSwiglu, to.out = ffn.up.data;
    launch(normed(), join_rows(ffn.gate_weight, 2 * sizes_.ffn), factors(), to);
  }
  void down(std::size_t i) const {
    const Ops::DecodeLayer& layer = step_.layers[i];
    const bool last = i + 1 == step_.layers.size();
    launch(layer.ffn.up, layer.down_weight, {},
           added(last ? step_.norm : step_.layers[i + 1].attention.audio_norm));
  }
  void head(const TensorView& out) const {
    WideOutput to{};
    to.end = WideEnd::kStoreF32, to.out = out.data;
    launch(normed(), step_.head, factors(), to);
  }
  const TensorView& normed() const { return step_.layers.front().attention.normed; }

 private:
  WideFactors factors() const {
    return {scratch_.squares(), wide_tiles(static_cast<int>(sizes_.hidden)),
            static_cast<int>(sizes_.hidden), step_.layers.front().attention.eps};
  }
  WideOutput added(const TensorView& norm) const {
    WideOutput to{};
    to.end = WideEnd::kAdd, to.out = x_.data;
    to.next = {static_cast<const bf16*>(norm.data), static_cast<bf16*>(normed().data),
               scratch_.squares()};
    return to;
  }
  void launch(const TensorView& rows, const TensorView& weight, const WideFactors& factors,
              const WideOutput& to) const {
    check_cuda(paths_.wide(rows, weight, to, factors), kOp, "the launch");
  }

  LinearPaths& paths_;
  const TensorView& x_;
  const Ops::DecodeStep& step_;
  const WideScratch& scratch_;
  Sizes sizes_;
};

}  // namespace

bool CudaOps::wide_step(const TensorView& x, const DecodeStep& step, const TensorView& out) {
  if (!takes(*linear_, x, step)) return false;
  const Sizes sizes = sizes_of(x, step.layers.front());
  check_step(x, step, out, sizes);
  device_.activate();
  if (wide_.empty() || !wide_.back()->fits(sizes)) {
    expect_no_capture(device_);
    wide_.push_back(std::make_shared<WideScratch>(device_, sizes));
  }
  const WideScratch& scratch = *wide_.back();
  const WideProducts products(*linear_, x, step, scratch, sizes);
  const AttentionInput& first = step.layers.front().attention;
  rms_norm(x, first.audio_norm, first.eps, products.normed());
  for (std::size_t i = 0; i < step.layers.size(); ++i) {
    const DecodeLayer& layer = step.layers[i];
    products.qkv(i);
    attention(scratch.q(sizes.rows), layer.k_cache, layer.v_cache, step.batch,
              scratch.attended(sizes.rows));
    products.o(i);
    products.gate_up(i);
    products.down(i);
  }
  products.head(out);
  return true;
}

}  // namespace higgs_rt
