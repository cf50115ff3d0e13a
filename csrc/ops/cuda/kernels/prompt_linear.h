// Matrix products of prompt rows, and of more than 128 decode rows, with bf16 weights on compute
// capability 9.0, with what stands behind them in the decoder. Launchers: device pointers
// (multiples of 16), sizes, a stream; each launch may be captured in a CUDA graph.
//
// A row has the same bits for every number of rows, and the bits that a product by one chain of
// sums over the inputs in steps of 16 (cublas_lt.h) and a kernel behind it (joined.h) would give.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "ops/cuda/kernels/stream_linear.h"

namespace higgs_rt {

// What becomes of a product's sums.
enum class PromptEnd { kAdd, kSwiglu, kQkv };

// On the calling thread's current GPU.
bool prompt_linear_runs();
// Whether such a product of these sizes exists and was faster than cuBLASLt's on an H200
// (docs/performance.md); `dim` of QkvOutput, else 0.
bool prompt_linear_takes(PromptEnd end, int rows, int outputs, int inputs, int dim);

// out [rows, outputs] += x weight^T.
cudaError_t launch_prompt_add(const StreamWeight& weight, const PlainRows& x, float* out,
                              cudaStream_t stream);
// out [rows, outputs / 2] = silu(gate) * up, weight [outputs, inputs] gate first.
cudaError_t launch_prompt_swiglu(const StreamWeight& weight, const PlainRows& x, __nv_bfloat16* out,
                                 cudaStream_t stream);
// Rotated queries, rotated keys and values, where they belong; the head size is a multiple of 128.
cudaError_t launch_prompt_qkv(const StreamWeight& weight, const PlainRows& x, const QkvOutput& out,
                              cudaStream_t stream);

}  // namespace higgs_rt
