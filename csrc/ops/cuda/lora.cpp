#include "ops/cuda/kernels/lora.h"

#include "ops/cuda/checks.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "add_lora";
constexpr std::int64_t kRankUnit = 8;

// Everything but the weights.
LoraStep step_of(const TensorView& x, const Ops::LoraRows& rows) {
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "scale", rows.scale, 1);
  LoraStep step{};
  step.x = x.data, step.dtype = x.dtype;
  step.rows = x.dim(0), step.inputs = x.dim(1);
  expect_cuda_real(kOp, "x", x, {step.rows, step.inputs});
  expect_cuda(kOp, "adapter", rows.adapter, DType::kI32, {step.rows});
  expect_cuda(kOp, "scale", rows.scale, DType::kF32, {rows.scale.dim(0)});
  step.adapter = rows.adapter.as<std::int32_t>(), step.scale = rows.scale.as<float>();
  step.work = rows.work.as<float>();
  return step;
}

void add_weight(LoraStep& step, const Ops::Lora& weight, std::int64_t adapters,
                const TensorView& out) {
  expect_cuda_rank(kOp, "a", weight.a, 3);
  expect_cuda_rank(kOp, "out", out, 2);
  const std::int64_t rank = weight.a.dim(1), outputs = out.dim(1);
  if (step.count == 0) step.rank = rank, step.out_dtype = out.dtype;
  check_internal(rank % kRankUnit == 0, kOp, "a: expected a rank that is a multiple of ", kRankUnit,
                 ", got ", rank);
  expect_cuda(kOp, "a", weight.a, step.dtype, {adapters, step.rank, step.inputs});
  expect_cuda(kOp, "b", weight.b, step.dtype, {adapters, outputs, step.rank});
  expect_cuda_real(kOp, "out", out, {step.rows, outputs});
  expect_cuda(kOp, "out", out, step.out_dtype, out.shape);
  step.weights[step.count++] = {weight.a.data, weight.b.data, out.data, outputs};
}

}  // namespace

void CudaOps::add_lora(const TensorView& x, std::span<const Lora> weights, const LoraRows& rows,
                       std::span<const TensorView> outs) {
  check_internal(weights.size() == outs.size() && weights.size() <= kMaxLora, kOp,
                 "outs: expected ", weights.size(), " and at most ", kMaxLora, ", got ",
                 outs.size());
  LoraStep step = step_of(x, rows);
  for (std::size_t p = 0; p < weights.size(); ++p) {
    if (weights[p].a) add_weight(step, weights[p], rows.scale.dim(0), outs[p]);
  }
  if (step.rows == 0 || step.count == 0) return;
  const std::int64_t needed = step.count * step.rows * step.rank;
  check_internal(rows.work.size() >= needed, kOp, "work: expected at least ", needed,
                 " numbers, got ", rows.work.size());
  device_.activate();
  check_cuda(launch_lora_shrink(step, device_.stream()), kOp, "the first launch");
  check_cuda(launch_lora_expand(step, device_.stream()), kOp, "the second launch");
}

}  // namespace higgs_rt
