// Row gathers: hidden rows, and columns from the host or from the sampler.
#include <cstring>

#include "batch/step_batch.h"
#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

void CpuOps::gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  expect_rank("gather_rows", "x", x, 2);
  expect_rank("gather_rows", "rows", rows, 1);
  const std::int64_t size = x.dim(1), count = rows.dim(0);
  expect("gather_rows", "x", x, DType::kF32, {x.dim(0), size});
  expect("gather_rows", "rows", rows, DType::kI32, {count});
  expect("gather_rows", "out", out, DType::kF32, {count, size});
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t row = rows.as<std::int32_t>()[i];
    check_internal(row >= 0 && row < x.dim(0), "gather_rows", "rows: expected 0..", x.dim(0) - 1,
                   ", got ", row);
    std::memcpy(out.as<float>() + i * size, x.as<float>() + row * size,
                static_cast<std::size_t>(size) * sizeof(float));
  }
}

void CpuOps::gather_columns(const TensorView& index, const TensorView& given,
                            const TensorView& last, const TensorView& out) {
  expect_rank("gather_columns", "index", index, 1);
  expect_rank("gather_columns", "given", given, 2);
  expect_rank("gather_columns", "last", last, 2);
  expect_rank("gather_columns", "out", out, 2);
  const std::int64_t rows = index.dim(0), codebooks = out.dim(1);
  expect("gather_columns", "index", index, DType::kI32, {rows});
  expect("gather_columns", "given", given, DType::kI32, {given.dim(0), codebooks});
  expect("gather_columns", "last", last, DType::kI32, {last.dim(0), codebooks});
  expect("gather_columns", "out", out, DType::kI32, {rows, codebooks});
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int32_t at = index.as<std::int32_t>()[i];
    const bool fed_back = at >= StepBatch::kFeedback;
    const TensorView& source = fed_back ? last : given;
    const std::int64_t row = fed_back ? at - StepBatch::kFeedback : at;
    check_internal(row >= 0 && row < source.dim(0), "gather_columns", "index: expected 0..",
                   source.dim(0) - 1, fed_back ? " of last" : " of given", ", got ", row);
    std::memcpy(out.as<std::int32_t>() + i * codebooks, source.as<std::int32_t>() + row * codebooks,
                static_cast<std::size_t>(codebooks) * sizeof(std::int32_t));
  }
}

}  // namespace higgs_rt
