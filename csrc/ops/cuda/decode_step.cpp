// A whole decode step: as one kernel for the shape and the rows that it takes
// (LinearPaths::one_kernel_rows), with more rows as the wide products (wide_step.cpp); anything
// else goes in stages.
#include <algorithm>
#include <bit>

#include "ops/cuda/checks.h"
#include "ops/cuda/decode_stamps.h"
#include "ops/cuda/decode_step.h"
#include "ops/cuda/kernels/persist.h"
#include "ops/cuda/linear_paths.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "decode_step";
using Released = PersistShape;
constexpr std::int64_t kSize = Released::kHidden, kFfn = Released::kFfn, kDim = Released::kDim;
constexpr std::int64_t kQ = Released::kHeads * kDim, kKv = Released::kKvHeads * kDim;

std::int64_t* stamps = nullptr;

__nv_bfloat16* bf16_of(const TensorView& view) { return static_cast<__nv_bfloat16*>(view.data); }

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
}

bool is_bf16(const TensorView& view, const Shape& shape) {
  return view.dtype == DType::kBF16 && view.shape == shape && is_aligned(view);
}

bool takes_layer(const Ops::DecodeLayer& layer, std::int64_t slots) {
  const Ops::AttentionInput& input = layer.attention;
  const Ops::FfnInput& ffn = layer.ffn;
  return is_bf16(input.audio_norm, {kSize}) && is_bf16(input.q_weight, {kQ, kSize}) &&
         is_bf16(input.k_weight, {kKv, kSize}) && is_bf16(input.v_weight, {kKv, kSize}) &&
         follows(input.q_weight, input.k_weight) && follows(input.k_weight, input.v_weight) &&
         is_bf16(layer.o_weight, {kSize, kQ}) && is_bf16(ffn.norm, {kSize}) &&
         is_bf16(ffn.gate_weight, {kFfn, kSize}) && is_bf16(ffn.up_weight, {kFfn, kSize}) &&
         follows(ffn.gate_weight, ffn.up_weight) && is_bf16(layer.down_weight, {kSize, kFfn}) &&
         is_bf16(layer.k_cache, {slots, Released::kKvHeads, kDim}) &&
         is_bf16(layer.v_cache, {slots, Released::kKvHeads, kDim});
}

bool takes(const TensorView& x, const Ops::DecodeStep& step, const TensorView& out) {
  const std::int64_t slots = step.batch.layout.num_slots();
  return step.layers.size() <= kPersistLayers && !step.layers.empty() &&
         std::all_of(step.layers.begin(), step.layers.end(),
                     [&](const Ops::DecodeLayer& layer) { return takes_layer(layer, slots); }) &&
         is_bf16(step.norm, {kSize}) && is_bf16(step.head, {Released::kHead, kSize}) &&
         std::has_single_bit(static_cast<unsigned>(step.batch.layout.block_tokens)) &&
         x.shape == Shape{x.dim(0), kSize} && is_aligned(x) && is_aligned(out);
}

void check_step(const TensorView& x, const Ops::DecodeStep& step, const TensorView& out) {
  const std::int64_t rows = x.dim(0);
  const Ops::AttentionInput& input = step.layers.front().attention;
  expect_cuda_rank(kOp, "block_table", step.batch.block_table, 2);
  expect_cuda(kOp, "x", x, DType::kF32, x.shape);
  expect_cuda(kOp, "out", out, DType::kF32, {rows, Released::kHead});
  expect_cuda(kOp, "position", input.position, DType::kI32, {rows});
  expect_cuda(kOp, "slot", input.slot, DType::kI32, {rows});
  expect_cuda(kOp, "sequence", step.batch.sequence, DType::kI32, {rows});
  expect_cuda(kOp, "block_table", step.batch.block_table, DType::kI32,
              step.batch.block_table.shape);
  expect_cuda(kOp, "rope", input.rope, DType::kF32, {input.rope.dim(0), kDim / 2, 2});
}

PersistStep arguments_of(const TensorView& x, const Ops::DecodeStep& step, const TensorView& out) {
  PersistStep to{};
  to.num_layers = static_cast<int>(step.layers.size());
  for (int i = 0; i < to.num_layers; ++i) {
    const Ops::DecodeLayer& layer = step.layers[static_cast<std::size_t>(i)];
    to.layers[i] = {bf16_of(layer.attention.audio_norm), bf16_of(layer.ffn.norm),
                    bf16_of(layer.k_cache), bf16_of(layer.v_cache)};
    to.matrices[4 * i] = bf16_of(layer.attention.q_weight);
    to.matrices[4 * i + 1] = bf16_of(layer.o_weight);
    to.matrices[4 * i + 2] = bf16_of(layer.ffn.gate_weight);
    to.matrices[4 * i + 3] = bf16_of(layer.down_weight);
  }
  to.matrices[4 * to.num_layers] = bf16_of(step.head);
  to.final_norm = bf16_of(step.norm);
  to.hidden = x.as<float>(), to.logits = out.as<float>();
  const Ops::AttentionInput& input = step.layers.front().attention;
  to.position = input.position.as<std::int32_t>(), to.slot = input.slot.as<std::int32_t>();
  to.sequence = step.batch.sequence.as<std::int32_t>();
  to.block_table = step.batch.block_table.as<std::int32_t>();
  to.max_blocks = static_cast<int>(step.batch.block_table.dim(1));
  to.block_tokens_log2 = std::countr_zero(static_cast<unsigned>(step.batch.layout.block_tokens));
  to.rope = input.rope.as<float>();
  to.eps = input.eps, to.rows = static_cast<int>(x.dim(0));
  to.stamps = stamps;
  return to;
}

}  // namespace

// The kernel's memory between launches, for a number of layers.
class PersistScratch {
 public:
  PersistScratch(CudaDevice& device, int layers)
      : layers_(layers),
        cells_(filled(device, 2 * kOneKernelRows * persist_row_bytes(layers), 0xFF)),
        parts_(filled(device, persist_part_bytes(), 0)),
        state_(filled(device, persist_state_bytes(), 0)) {}

  int layers() const { return layers_; }
  void give(PersistStep& step) const {
    step.cells = static_cast<unsigned char*>(cells_.get());
    step.parts = static_cast<unsigned char*>(parts_.get());
    step.state = static_cast<std::uint32_t*>(state_.get());
  }

 private:
  static std::shared_ptr<void> filled(CudaDevice& device, std::size_t bytes, int byte) {
    std::shared_ptr<void> memory = device.allocate(bytes);
    check_cuda(cudaMemsetAsync(memory.get(), byte, bytes, device.stream()), kOp, "cudaMemsetAsync");
    return memory;
  }

  int layers_;
  std::shared_ptr<void> cells_, parts_, state_;
};

void record_decode_stamps(std::int64_t* memory) { stamps = memory; }

void expect_no_capture(CudaDevice& device) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(device.stream(), &status), kOp, "cudaStreamIsCapturing");
  check_internal(status == cudaStreamCaptureStatusNone, kOp,
                 "working memory: expected a run of this step before it is recorded, got none");
}

std::int64_t CudaOps::decode_step_rows() const {
  return linear_->wide_runs() ? kWideMaxRows : linear_->one_kernel_rows();
}

bool CudaOps::decode_step(const TensorView& x, const DecodeStep& step, const TensorView& out) {
  expect_cuda_rank(kOp, "x", x, 2);
  const std::int64_t rows = x.dim(0);
  const std::int64_t most = linear_->one_kernel_rows();
  if (rows > kStreamMaxRows) return rows <= decode_step_rows() && wide_step(x, step, out);
  if (rows < 1 || most == 0 || !takes(x, step, out)) return false;
  // With more than `most` rows the products are faster. Where steps can have some more, but no more
  // than 16, all of them take these, so that a row has the same bits in every step (docs/gpu.md).
  const bool mixed = step.most_rows > most && step.most_rows <= kStreamMaxRows;
  if (rows > most || mixed) return wide_step(x, step, out);
  check_step(x, step, out);
  device_.activate();
  PersistStep arguments = arguments_of(x, step, out);
  if (persist_.empty() || persist_.back()->layers() != arguments.num_layers) {
    expect_no_capture(device_);
    persist_.push_back(std::make_shared<PersistScratch>(device_, arguments.num_layers));
  }
  persist_.back()->give(arguments);
  check_cuda(launch_persist(arguments, device_.stream()), kOp, "the launch");
  return true;
}

}  // namespace higgs_rt
