// embed_text, gather_columns, embed_columns and, of both of these, embed_audio.
#include "ops/cuda/checks.h"
#include "ops/cuda/kernels/rows.h"

namespace higgs_rt {

namespace {

ColumnSource gathered(const char* op, const TensorView& index, const TensorView& given,
                      const TensorView& last, std::int64_t codebooks) {
  expect_cuda_rank(op, "index", index, 1);
  expect_cuda_rank(op, "given", given, 2);
  expect_cuda_rank(op, "last", last, 2);
  expect_cuda(op, "index", index, DType::kI32, {index.dim(0)});
  expect_cuda(op, "given", given, DType::kI32, {given.dim(0), codebooks});
  expect_cuda(op, "last", last, DType::kI32, {last.dim(0), codebooks});
  return {index.as<std::int32_t>(), given.as<std::int32_t>(), last.as<std::int32_t>()};
}

EmbedColumns embedding(const char* op, const TensorView& table, const ColumnSource& source,
                       std::int64_t rows, std::int64_t codebooks, const TensorView& out) {
  expect_cuda_rank(op, "table", table, 2);
  const std::int64_t size = table.dim(1);
  check_internal(codebooks > 0 && table.dim(0) % codebooks == 0, op,
                 "table: expected a multiple of ", codebooks, " rows, got ", table.dim(0));
  expect_cuda_real(op, "table", table, {table.dim(0), size});
  expect_cuda(op, "out", out, DType::kF32, {rows, size});
  return {
      table.data, table.dtype, source, out.as<float>(), rows, codebooks, table.dim(0) / codebooks,
      size};
}

}  // namespace

void CudaOps::embed_text(const TensorView& table, const TensorView& table_rows,
                         const TensorView& ids, const TensorView& out) {
  constexpr const char* kOp = "embed_text";
  expect_cuda_rank(kOp, "table", table, 2);
  expect_cuda_rank(kOp, "table_rows", table_rows, 2);
  expect_cuda_rank(kOp, "ids", ids, 1);
  const std::int64_t rows = ids.dim(0), vocab = table.dim(0), size = table.dim(1);
  expect_cuda_real(kOp, "table", table, {vocab, size});
  expect_cuda(kOp, "table_rows", table_rows, DType::kF32, {table_rows.dim(0), size});
  expect_cuda(kOp, "ids", ids, DType::kI32, {rows});
  expect_cuda(kOp, "out", out, DType::kF32, {rows, size});
  if (rows == 0) return;
  device_.activate();
  check_cuda(launch_embed_text({table.data, table.dtype, table_rows.as<float>(),
                                ids.as<std::int32_t>(), out.as<float>(), rows, vocab, size},
                               device_.stream()),
             kOp, "the launch");
}

void CudaOps::gather_columns(const TensorView& index, const TensorView& given,
                             const TensorView& last, const TensorView& out) {
  constexpr const char* kOp = "gather_columns";
  expect_cuda_rank(kOp, "out", out, 2);
  const std::int64_t codebooks = out.dim(1);
  const ColumnSource source = gathered(kOp, index, given, last, codebooks);
  const std::int64_t rows = index.dim(0);
  expect_cuda(kOp, "out", out, DType::kI32, {rows, codebooks});
  if (rows == 0) return;
  device_.activate();
  check_cuda(
      launch_gather_columns(source, rows, codebooks, out.as<std::int32_t>(), device_.stream()), kOp,
      "the launch");
}

void CudaOps::embed_columns(const TensorView& table, const TensorView& columns,
                            const TensorView& out) {
  constexpr const char* kOp = "embed_columns";
  expect_cuda_rank(kOp, "columns", columns, 2);
  const std::int64_t rows = columns.dim(0), codebooks = columns.dim(1);
  expect_cuda(kOp, "columns", columns, DType::kI32, {rows, codebooks});
  const EmbedColumns arguments =
      embedding(kOp, table, {nullptr, columns.as<std::int32_t>(), nullptr}, rows, codebooks, out);
  if (rows == 0) return;
  device_.activate();
  check_cuda(launch_embed_columns(arguments, device_.stream()), kOp, "the launch");
}

void CudaOps::embed_audio(const ColumnInput& input, const TensorView& out) {
  constexpr const char* kOp = "embed_audio";
  expect_cuda_rank(kOp, "columns", input.columns, 2);
  const std::int64_t codebooks = input.columns.dim(1);
  const ColumnSource source = gathered(kOp, input.index, input.given, input.last, codebooks);
  const std::int64_t rows = input.index.dim(0);
  const EmbedColumns arguments = embedding(kOp, input.table, source, rows, codebooks, out);
  if (rows == 0) return;
  device_.activate();
  check_cuda(launch_embed_columns(arguments, device_.stream()), kOp, "the launch");
}

}  // namespace higgs_rt
