// Matrix product for every shape and element type: fp32 models, and what the fast forms leave.
// Every output is one chain of multiply-adds over the inputs in order, so a row has the same bits
// in every batch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace higgs_rt {

struct PlainLinear {
  const void* x;  // [rows, inputs] x_dtype
  DType x_dtype;
  const void* weight;  // [outputs, inputs] weight_dtype
  DType weight_dtype;
  void* out;  // [rows, outputs] out_dtype; fp32 when `accumulate`
  DType out_dtype;
  bool accumulate;
  std::int64_t rows, outputs, inputs;
};
// Types kF32 or kBF16. May be captured in a CUDA graph.
cudaError_t launch_plain_linear(const PlainLinear& arguments, cudaStream_t stream);

}  // namespace higgs_rt
