// Placeholders: each fails by name until its CUDA form is written.
#include "core/check.h"
#include "ops/cuda/cuda_ops.h"

namespace higgs_rt {

void CudaOps::embed_text(const TensorView&, const TensorView&, const TensorView&,
                         const TensorView&) {
  fail(ErrorCode::kUnsupported, "embed_text", "not written for CUDA yet");
}

void CudaOps::gather_columns(const TensorView&, const TensorView&, const TensorView&,
                             const TensorView&) {
  fail(ErrorCode::kUnsupported, "gather_columns", "not written for CUDA yet");
}

void CudaOps::embed_columns(const TensorView&, const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "embed_columns", "not written for CUDA yet");
}

void CudaOps::rms_norm(const TensorView&, const TensorView&, float, const TensorView&) {
  fail(ErrorCode::kUnsupported, "rms_norm", "not written for CUDA yet");
}

void CudaOps::rope(const TensorView&, const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "rope", "not written for CUDA yet");
}

void CudaOps::store_kv(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                       const TensorView&) {
  fail(ErrorCode::kUnsupported, "store_kv", "not written for CUDA yet");
}

void CudaOps::attention(const TensorView&, const TensorView&, const TensorView&,
                        const AttentionBatch&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "attention", "not written for CUDA yet");
}

void CudaOps::swiglu(const TensorView&, const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "swiglu", "not written for CUDA yet");
}

void CudaOps::gather_rows(const TensorView&, const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "gather_rows", "not written for CUDA yet");
}

void CudaOps::embed_audio(const ColumnInput&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "embed_audio", "not written for CUDA yet");
}

}  // namespace higgs_rt
