// rms_norm, rope, store_kv, swiglu and gather_rows.
#include "ops/cuda/checks.h"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

void CudaOps::rms_norm(const TensorView& x, const TensorView& weight, float eps,
                       const TensorView& out) {
  constexpr const char* kOp = "rms_norm";
  expect_cuda_rank(kOp, "x", x, 2);
  const std::int64_t rows = x.dim(0), size = x.dim(1);
  expect_cuda(kOp, "x", x, DType::kF32, {rows, size});
  expect_cuda_real(kOp, "weight", weight, {size});
  expect_cuda_real(kOp, "out", out, {rows, size});
  if (rows == 0) return;
  device_.activate();
  check_cuda(launch_rms_norm(
                 {x.as<float>(), weight.data, weight.dtype, out.data, out.dtype, eps, rows, size},
                 device_.stream()),
             kOp, "the launch");
}

void CudaOps::rope(const TensorView& x, const TensorView& positions, const TensorView& table) {
  constexpr const char* kOp = "rope";
  expect_cuda_rank(kOp, "x", x, 3);
  expect_cuda_rank(kOp, "table", table, 3);
  const std::int64_t rows = x.dim(0), heads = x.dim(1), dim = x.dim(2);
  check_internal(dim % 2 == 0, kOp, "x: expected an even head size, got ", dim);
  expect_cuda_real(kOp, "x", x, {rows, heads, dim});
  expect_cuda(kOp, "positions", positions, DType::kI32, {rows});
  expect_cuda(kOp, "table", table, DType::kF32, {table.dim(0), dim / 2, 2});
  if (rows == 0) return;
  device_.activate();
  check_cuda(launch_rope({x.data, x.dtype, positions.as<std::int32_t>(), table.as<float>(), rows,
                          heads, dim},
                         device_.stream()),
             kOp, "the launch");
}

void CudaOps::store_kv(const TensorView& k, const TensorView& v, const TensorView& slots,
                       const TensorView& k_cache, const TensorView& v_cache) {
  constexpr const char* kOp = "store_kv";
  expect_cuda_rank(kOp, "k", k, 3);
  expect_cuda_rank(kOp, "k_cache", k_cache, 3);
  const std::int64_t rows = k.dim(0), heads = k.dim(1), dim = k.dim(2);
  expect_cuda_real(kOp, "k", k, {rows, heads, dim});
  expect_cuda(kOp, "v", v, k.dtype, k.shape);
  expect_cuda(kOp, "slots", slots, DType::kI32, {rows});
  expect_cuda(kOp, "k_cache", k_cache, k.dtype, {k_cache.dim(0), heads, dim});
  expect_cuda(kOp, "v_cache", v_cache, k.dtype, k_cache.shape);
  if (rows == 0) return;
  device_.activate();
  const auto row_bytes = heads * dim * static_cast<std::int64_t>(size_of(k.dtype));
  check_cuda(launch_store_kv({k.data, v.data, slots.as<std::int32_t>(), k_cache.data, v_cache.data,
                              rows, row_bytes},
                             device_.stream()),
             kOp, "the launch");
}

void CudaOps::swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) {
  constexpr const char* kOp = "swiglu";
  expect_cuda_rank(kOp, "gate", gate, 2);
  expect_cuda_real(kOp, "gate", gate, gate.shape);
  expect_cuda(kOp, "up", up, gate.dtype, gate.shape);
  expect_cuda(kOp, "out", out, gate.dtype, gate.shape);
  if (gate.size() == 0) return;
  device_.activate();
  check_cuda(
      launch_swiglu({gate.data, up.data, out.data, gate.dtype, gate.size()}, device_.stream()), kOp,
      "the launch");
}

void CudaOps::gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  constexpr const char* kOp = "gather_rows";
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "rows", rows, 1);
  const std::int64_t count = rows.dim(0), size = x.dim(1);
  expect_cuda(kOp, "x", x, DType::kF32, {x.dim(0), size});
  expect_cuda(kOp, "rows", rows, DType::kI32, {count});
  expect_cuda(kOp, "out", out, DType::kF32, {count, size});
  if (count == 0) return;
  device_.activate();
  check_cuda(
      launch_gather_rows({x.as<float>(), rows.as<std::int32_t>(), out.as<float>(), count, size},
                         device_.stream()),
      kOp, "the launch");
}

}  // namespace higgs_rt
