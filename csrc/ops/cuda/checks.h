// Checks that the CUDA operations share. Values in device memory (ids, positions, blocks) cannot be
// checked here: the engine checks them on the host (engine/native/check_batch.h).
#pragma once

#include "core/check.h"
#include "ops/cuda/cuda_ops.h"

namespace higgs_rt {

inline void expect_cuda_rank(const char* op, const char* name, const TensorView& view,
                             std::size_t rank) {
  check_internal(view.shape.size() == rank, op, name, ": expected rank ", rank, ", got ",
                 to_string(view.shape));
}

// fp32 or bf16: weights, activations.
inline void expect_cuda_real(const char* op, const char* name, const TensorView& view,
                             const Shape& shape) {
  const DType dtype = view.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  expect_cuda(op, name, view, dtype, shape);
}

}  // namespace higgs_rt
