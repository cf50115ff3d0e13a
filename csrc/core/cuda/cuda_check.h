// Turns CUDA's error codes into Error.
#pragma once

#include <cuda_runtime_api.h>

#include "core/check.h"

namespace higgs_rt {

// `call` names the CUDA function. Running out of memory is kResourceExhausted, the rest kInternal.
inline void check_cuda(cudaError_t result, const char* where, const char* call) {
  if (result == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // or a later call that looks for one would report it
  const ErrorCode code =
      result == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  fail(code, where, "expected ", call, " to succeed, got ", cudaGetErrorName(result), ": ",
       cudaGetErrorString(result));
}

}  // namespace higgs_rt
