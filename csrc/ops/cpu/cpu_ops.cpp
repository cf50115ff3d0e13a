// Assembly of the CPU operations and what they share.
#include "ops/cpu/cpu_ops.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {

namespace {

// Multiply-adds that one thread does while work is handed to another: one or two microseconds.
constexpr std::int64_t kMinWork = 192 * 1024;

void expect_form(const char* op, const char* name, const TensorView& view, bool dtype_ok,
                 const char* dtypes, const Shape& shape) {
  if (dtype_ok && view.shape == shape) return;  // the text is made for failures only
  fail(ErrorCode::kInternal, op, name, ": expected ", dtypes, ' ', to_string(shape), ", got ",
       name_of(view.dtype), ' ', to_string(view.shape));
}

}  // namespace

std::int64_t CpuOps::grain_for(std::int64_t cost) {
  return std::max<std::int64_t>(1, kMinWork / std::max<std::int64_t>(1, cost));
}

void expect(const char* op, const char* name, const TensorView& view, DType dtype,
            const Shape& shape) {
  expect_form(op, name, view, view.dtype == dtype, name_of(dtype), shape);
}

void expect_weight(const char* op, const char* name, const TensorView& view, const Shape& shape) {
  expect_form(op, name, view, view.dtype == DType::kF32 || view.dtype == DType::kBF16,
              "f32 or bf16", shape);
}

void expect_rank(const char* op, const char* name, const TensorView& view, std::size_t rank) {
  if (view.shape.size() == rank) return;
  fail(ErrorCode::kInternal, op, name, ": expected ", rank, " axes, got ", to_string(view.shape));
}

const std::uint16_t* bf16_bits(const TensorView& view) { return &view.as<BF16>()->bits; }

std::unique_ptr<Ops> make_cpu_ops(Device& device, ThreadPool& pool) {
  check(device.kind() == DeviceKind::kCpu, "ops", "expected a cpu device, got ", device.name());
  return std::make_unique<CpuOps>(device, pool, select_kernels());
}

const char* cpu_isa() { return select_kernels().isa; }

}  // namespace higgs_rt
