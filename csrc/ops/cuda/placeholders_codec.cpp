// Placeholders: each fails by name until its CUDA form is written.
#include "core/check.h"
#include "ops/cuda/cuda_ops.h"

namespace higgs_rt {

void CudaOps::sum_code_tables(const TensorView&, const TensorView&, const TensorView&,
                              const TensorView&) {
  fail(ErrorCode::kUnsupported, "sum_code_tables", "not written for CUDA yet");
}

void CudaOps::conv1d(const TensorView&, const TensorView&, const TensorView&, const Conv1d&,
                     const TensorView*, const TensorView&) {
  fail(ErrorCode::kUnsupported, "conv1d", "not written for CUDA yet");
}

void CudaOps::conv_transpose1d(const TensorView&, const TensorView&, const TensorView&,
                               const Conv1d&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "conv_transpose1d", "not written for CUDA yet");
}

void CudaOps::snake(const TensorView&, const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "snake", "not written for CUDA yet");
}

void CudaOps::crop(const TensorView&, std::int64_t, const TensorView&) {
  fail(ErrorCode::kUnsupported, "crop", "not written for CUDA yet");
}

}  // namespace higgs_rt
