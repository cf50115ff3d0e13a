#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cuda/checks.h"
#include "ops/cuda/kernels/attention.h"

namespace higgs_rt {

namespace {

constexpr const char* kOp = "attention";

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), kOp, "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

// Memory of the kernels for bf16. It grows with the head size and the rows of a step, seldom more
// than once; what graphs refer to stays.
class AttentionScratch {
 public:
  explicit AttentionScratch(CudaDevice& device) : device_(device) {
    check_cuda(prepare_attention_decode(), kOp, "cudaFuncSetAttribute");
    check_cuda(prepare_attention_prefill(memory_), kOp, "cudaFuncSetAttribute");
    check_cuda(cudaDeviceGetAttribute(&memory_.multiprocessors, cudaDevAttrMultiProcessorCount,
                                      device_.ordinal()),
               kOp, "cudaDeviceGetAttribute");
  }

  const AttentionMemory& reserve(const AttentionShape& shape) {
    const std::int64_t elements = shape.query_heads / shape.kv_heads * shape.dim;
    if (elements > elements_) {
      const std::size_t splits = kMaxSplitItems * kMaxSplits;
      const auto floats = splits * static_cast<std::size_t>(elements);
      memory_.partial = static_cast<float*>(allocate(floats * sizeof(float)));
      memory_.scale = static_cast<float*>(allocate(splits * 2 * kMaxGroup * sizeof(float)));
      memory_.counters =
          static_cast<std::uint32_t*>(allocate(kMaxSplitItems * sizeof(std::uint32_t)));
      check_cuda(cudaMemsetAsync(memory_.counters, 0, kMaxSplitItems * sizeof(std::uint32_t),
                                 device_.stream()),
                 kOp, "cudaMemsetAsync");
      elements_ = elements;
    }
    if (shape.rows > rows_) {
      rows_ = std::max<std::int64_t>(shape.rows, kFirstRows);
      memory_.plan = static_cast<AttentionTile*>(
          allocate(static_cast<std::size_t>(rows_) * sizeof(AttentionTile)));
    }
    return memory_;
  }

 private:
  static constexpr std::int64_t kFirstRows = 8192;

  void* allocate(std::size_t bytes) {
    check_internal(!is_capturing(device_.stream()), kOp,
                   "expected the shape of a graph to have run before it is recorded");
    buffers_.push_back(device_.allocate(bytes));
    return buffers_.back().get();
  }

  CudaDevice& device_;
  std::vector<std::shared_ptr<void>> buffers_;
  AttentionMemory memory_{};
  std::int64_t elements_ = 0, rows_ = 0;
};

namespace {

AttentionShape checked_shape(const TensorView& q, const TensorView& k_cache,
                             const Ops::AttentionBatch& batch) {
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
  expect_cuda(kOp, "sequence", batch.sequence, DType::kI32, {rows});
  expect_cuda(kOp, "position", batch.position, DType::kI32, {rows});
  expect_cuda(kOp, "block_table", batch.block_table, DType::kI32, batch.block_table.shape);
  return {rows,
          query_heads,
          kv_heads,
          dim,
          batch.layout.block_tokens,
          static_cast<std::int32_t>(batch.block_table.dim(1)),
          static_cast<std::int32_t>(batch.block_table.dim(0)),
          ~std::uint32_t{0} / static_cast<std::uint32_t>(batch.layout.block_tokens),
          1.0f / std::sqrt(static_cast<float>(dim))};
}

AttentionData attention_data(const TensorView& q, const TensorView& k_cache,
                             const Ops::AttentionBatch& batch) {
  return {q.data,
          k_cache.data,
          nullptr,
          batch.sequence.as<std::int32_t>(),
          batch.position.as<std::int32_t>(),
          batch.block_table.as<std::int32_t>(),
          nullptr,
          q.dtype};
}

// Of prompt rows. At most two runs of a sequence: one of text, one of audio.
std::int64_t most_tiles(const AttentionShape& shape, const Ops::AttentionBatch& batch) {
  return std::min(shape.rows, shape.rows / tile_rows(shape) + 2 * batch.block_table.dim(0));
}

}  // namespace

void CudaOps::plan_attention(const TensorView& q, const TensorView& k_cache,
                             const AttentionBatch& batch) {
  const AttentionShape shape = checked_shape(q, k_cache, batch);
  if (shape.rows == 0 || batch.kind == RowKind::kDecode ||
      !has_tensor_core_attention(shape, q.dtype)) {
    return;
  }
  device_.activate();
  if (!attention_) attention_ = std::make_shared<AttentionScratch>(device_);
  const AttentionMemory& memory = attention_->reserve(shape);
  check_cuda(launch_attention_plan(shape, attention_data(q, k_cache, batch), memory,
                                   most_tiles(shape, batch), device_.stream()),
             kOp, "the launch of the plan");
}

void CudaOps::attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                        const AttentionBatch& batch, const TensorView& out) {
  const AttentionShape shape = checked_shape(q, k_cache, batch);
  expect_cuda(kOp, "v_cache", v_cache, q.dtype, k_cache.shape);
  expect_cuda(kOp, "out", out, q.dtype, q.shape);
  if (shape.rows == 0) return;
  device_.activate();
  AttentionData data = attention_data(q, k_cache, batch);
  data.v_cache = v_cache.data;
  data.out = out.data;
  if (!has_tensor_core_attention(shape, q.dtype)) {
    check_cuda(launch_attention_plain(shape, data, device_.stream()), kOp, "the launch");
    return;
  }
  if (!attention_) attention_ = std::make_shared<AttentionScratch>(device_);
  const AttentionMemory& memory = attention_->reserve(shape);
  const cudaStream_t stream = device_.stream();
  if (batch.kind == RowKind::kDecode) {
    check_cuda(launch_attention_decode(shape, data, memory, stream), kOp,
               "the launch for decode rows");
    return;
  }
  check_cuda(launch_attention_prefill(shape, data, memory, most_tiles(shape, batch), stream), kOp,
             "the launch for prompts");
}

}  // namespace higgs_rt
