// What follows a product whose weight is several matrices one after another, bf16. Launchers:
// device pointers (multiples of 16), sizes, a stream; may be captured in a CUDA graph.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "ops/cuda/kernels/stream_linear.h"

namespace higgs_rt {

// out [rows, width] = silu(gate) * up of joined [rows, gate width | up width]; width % 8 == 0.
cudaError_t launch_joined_swiglu(const __nv_bfloat16* joined, __nv_bfloat16* out, int rows,
                                 int width, cudaStream_t stream);

// Rotates and stores the rows of joined [rows, Hq D + 2 Hk D]; dim % 16 == 0.
cudaError_t launch_joined_qkv(const __nv_bfloat16* joined, const QkvOutput& out, int rows,
                              cudaStream_t stream);

}  // namespace higgs_rt
