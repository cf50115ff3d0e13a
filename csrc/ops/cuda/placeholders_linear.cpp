// Placeholders: each fails by name until its CUDA form is written.
#include "core/check.h"
#include "ops/cuda/cuda_ops.h"

namespace higgs_rt {

void CudaOps::linear(const TensorView&, const TensorView&, const TensorView&, bool) {
  fail(ErrorCode::kUnsupported, "linear", "not written for CUDA yet");
}

void CudaOps::attention_input(const TensorView&, const AttentionInput&, const TensorView&,
                              const TensorView&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "attention_input", "not written for CUDA yet");
}

void CudaOps::ffn_input(const TensorView&, const FfnInput&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "ffn_input", "not written for CUDA yet");
}

void CudaOps::head(const TensorView&, const HeadInput&, const TensorView&) {
  fail(ErrorCode::kUnsupported, "head", "not written for CUDA yet");
}

}  // namespace higgs_rt
