#include <cmath>

#include "ops/cuda/checks.h"
#include "ops/cuda/kernels/attention.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "attention";

AttentionShape checked_shape(const TensorView& q, const TensorView& k_cache,
                             const TensorView& v_cache, const Ops::AttentionBatch& batch,
                             const TensorView& out) {
  expect_cuda_rank(kOp, "q", q, 3);
  expect_cuda_rank(kOp, "k_cache", k_cache, 3);
  expect_cuda_rank(kOp, "block_table", batch.block_table, 2);
  const std::int64_t rows = q.dim(0), query_heads = q.dim(1), dim = q.dim(2);
  const std::int64_t kv_heads = k_cache.dim(1);
  check_internal(kv_heads > 0 && query_heads % kv_heads == 0, kOp, "q: expected a multiple of ",
                 kv_heads, " heads, got ", query_heads);
  check_internal(dim >= 1 && dim <= kMaxAttentionDim, kOp, "q: expected a head size of 1..",
                 kMaxAttentionDim, ", got ", dim);
  check_internal(batch.layout.block_tokens > 0, kOp, "layout: expected block_tokens > 0");
  expect_cuda_real(kOp, "q", q, {rows, query_heads, dim});
  expect_cuda(kOp, "k_cache", k_cache, q.dtype, {batch.layout.num_slots(), kv_heads, dim});
  expect_cuda(kOp, "v_cache", v_cache, q.dtype, k_cache.shape);
  expect_cuda(kOp, "sequence", batch.sequence, DType::kI32, {rows});
  expect_cuda(kOp, "position", batch.position, DType::kI32, {rows});
  expect_cuda(kOp, "block_table", batch.block_table, DType::kI32, batch.block_table.shape);
  expect_cuda(kOp, "out", out, q.dtype, q.shape);
  return {rows,
          query_heads,
          kv_heads,
          dim,
          batch.layout.block_tokens,
          static_cast<std::int32_t>(batch.block_table.dim(1)),
          1.0f / std::sqrt(static_cast<float>(dim))};
}

}  // namespace

void CudaOps::attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                        const AttentionBatch& batch, const TensorView& out) {
  const AttentionShape shape = checked_shape(q, k_cache, v_cache, batch, out);
  if (shape.rows == 0) return;
  device_.activate();
  const AttentionData data = {q.data,
                              k_cache.data,
                              v_cache.data,
                              batch.sequence.as<std::int32_t>(),
                              batch.position.as<std::int32_t>(),
                              batch.block_table.as<std::int32_t>(),
                              out.data,
                              q.dtype};
  check_cuda(launch_attention_plain(shape, data, device_.stream()), kOp, "the launch");
}

}  // namespace higgs_rt
