// Embedding lookups: text rows and prompt-table rows, and sums over codebooks.
#include <cstring>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

// out = (first ? 0 : out) + row `row` of table [rows, size].
void add_row(const Kernels& kernels, const TensorView& table, std::int64_t row, bool first,
             float* out, std::int64_t size) {
  if (table.dtype == DType::kF32) {
    kernels.add_f32(table.as<float>() + row * size, first, out, size);
  } else {
    kernels.add_bf16(bf16_bits(table) + row * size, first, out, size);
  }
}

}  // namespace

void CpuOps::embed_text(const TensorView& table, const TensorView& table_rows,
                        const TensorView& ids, const TensorView& out) {
  expect_rank("embed_text", "table", table, 2);
  expect_rank("embed_text", "table_rows", table_rows, 2);
  expect_rank("embed_text", "ids", ids, 1);
  const std::int64_t vocab = table.dim(0), size = table.dim(1), rows = ids.dim(0);
  expect_weight("embed_text", "table", table, {vocab, size});
  expect("embed_text", "table_rows", table_rows, DType::kF32, {table_rows.dim(0), size});
  expect("embed_text", "ids", ids, DType::kI32, {rows});
  expect("embed_text", "out", out, DType::kF32, {rows, size});

  const std::int64_t limit = vocab + table_rows.dim(0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t id = ids.as<std::int32_t>()[r];
    check_internal(id >= 0 && id < limit, "embed_text", "ids: expected 0..", limit - 1, ", got ",
                   id);
    float* to = out.as<float>() + r * size;
    if (id < vocab) {
      add_row(kernels_, table, id, true, to, size);
    } else {
      kernels_.add_f32(table_rows.as<float>() + (id - vocab) * size, true, to, size);
    }
  }
}

void CpuOps::embed_columns(const TensorView& table, const TensorView& columns,
                           const TensorView& out) {
  expect_rank("embed_columns", "table", table, 2);
  expect_rank("embed_columns", "columns", columns, 2);
  const std::int64_t rows = columns.dim(0), codebooks = columns.dim(1), size = table.dim(1);
  check_internal(codebooks > 0 && table.dim(0) % codebooks == 0, "embed_columns",
                 "table: expected a multiple of ", codebooks, " rows, got ", table.dim(0));
  const std::int64_t vocab = table.dim(0) / codebooks;
  expect_weight("embed_columns", "table", table, {table.dim(0), size});
  expect("embed_columns", "columns", columns, DType::kI32, {rows, codebooks});
  expect("embed_columns", "out", out, DType::kF32, {rows, size});

  const std::int32_t* ids = columns.as<std::int32_t>();
  for (std::int64_t i = 0; i < rows * codebooks; ++i) {
    check_internal(ids[i] >= 0 && ids[i] < vocab, "embed_columns", "columns: expected 0..",
                   vocab - 1, ", got ", ids[i]);
  }
  parallel(rows, 4 * codebooks * size, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t k = 0; k < codebooks; ++k) {
        add_row(kernels_, table, k * vocab + ids[r * codebooks + k], k == 0,
                out.as<float>() + r * size, size);
      }
    }
  });
}

}  // namespace higgs_rt
