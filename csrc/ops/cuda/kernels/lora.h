// Launchers of add_lora (ops.h): the inner product of rank numbers a row, and what it adds.
//
// A row is a fixed order of multiply-adds, whatever the other rows and their adapters are. Adapters
// are read from device memory, so both launches may be captured in a CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace higgs_rt {

struct LoraWeight {
  const void* a;  // [adapters, rank, inputs] dtype
  const void* b;  // [adapters, outputs, rank] dtype
  void* out;      // [rows, outputs] out_dtype
  std::int64_t outputs;
};

struct LoraStep {
  LoraWeight weights[3];
  int count;      // of weights
  const void* x;  // [rows, inputs] dtype
  DType dtype, out_dtype;
  const std::int32_t* adapter;      // [rows]; -1: the row is passed over
  const float* scale;               // [adapters]
  float* work;                      // [count, rows, rank]
  std::int64_t rows, inputs, rank;  // rank is a multiple of 8
};
// work = scale * a x
cudaError_t launch_lora_shrink(const LoraStep& arguments, cudaStream_t stream);
// out += b work
cudaError_t launch_lora_expand(const LoraStep& arguments, cudaStream_t stream);

}  // namespace higgs_rt
