#include <algorithm>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "add_lora";

// Consecutive rows from `begin` on that have its adapter.
std::int64_t run_length(const std::int32_t* adapter, std::int64_t begin, std::int64_t end) {
  std::int64_t stop = begin + 1;
  while (stop < end && adapter[stop] == adapter[begin]) ++stop;
  return stop - begin;
}

}  // namespace

// Rows of one adapter; `work` [rows, rank].
void CpuOps::add_lora_run(const TensorView& x, const Lora& weight, std::int32_t adapter,
                          float scale, float* work, const TensorView& out) const {
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = out.dim(1);
  const std::int64_t rank = weight.a.dim(1);
  const float* a = weight.a.as<float>() + adapter * rank * inputs;
  const float* b = weight.b.as<float>() + adapter * outputs * rank;
  kernels_.linear_f32({x.as<float>(), a, work, rows, inputs, rank, false}, 0, rank);
  for (std::int64_t i = 0; i < rows * rank; ++i) work[i] *= scale;
  kernels_.linear_f32({work, b, out.as<float>(), rows, rank, outputs, true}, 0, outputs);
}

// The threads divide the rows: a linear kernel computes each of them alone.
void CpuOps::add_lora(const TensorView& x, std::span<const Lora> weights, const LoraRows& rows,
                      std::span<const TensorView> outs) {
  expect_rank(kOp, "x", x, 2);
  const std::int64_t count = x.dim(0), inputs = x.dim(1), adapters = rows.scale.dim(0);
  expect(kOp, "x", x, DType::kF32, {count, inputs});
  expect(kOp, "adapter", rows.adapter, DType::kI32, {count});
  expect(kOp, "scale", rows.scale, DType::kF32, {adapters});
  check_internal(weights.size() == outs.size() && weights.size() <= kMaxLora, kOp,
                 "outs: expected ", weights.size(), " and at most ", kMaxLora, ", got ",
                 outs.size());
  const auto* adapter = rows.adapter.as<std::int32_t>();
  for (std::size_t p = 0; p < weights.size(); ++p) {
    const Lora& weight = weights[p];
    if (!weight.a) continue;
    expect_rank(kOp, "a", weight.a, 3);
    expect_rank(kOp, "out", outs[p], 2);
    const std::int64_t rank = weight.a.dim(1), outputs = outs[p].dim(1);
    expect(kOp, "a", weight.a, DType::kF32, {adapters, rank, inputs});
    expect(kOp, "b", weight.b, DType::kF32, {adapters, outputs, rank});
    expect(kOp, "out", outs[p], DType::kF32, {count, outputs});
    check_internal(rows.work.size() >= count * rank, kOp, "work: expected at least ", count * rank,
                   " numbers, got ", rows.work.size());
    auto* work = rows.work.as<float>();
    parallel(count, rank * (inputs + outputs), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t run = 0; begin < end; begin += run) {
        run = run_length(adapter, begin, end);
        const std::int32_t chosen = adapter[begin];
        if (chosen < 0) continue;
        add_lora_run(x.slice(begin, run), weight, chosen, rows.scale.as<float>()[chosen],
                     work + begin * rank, outs[p].slice(begin, run));
      }
    });
  }
}

}  // namespace higgs_rt
