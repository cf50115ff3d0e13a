// Matrix products of a few rows with bf16 weights, bound by reading the weights once; with what
// stands before and after such a product in the decoder. Launchers: device pointers, a stream; each
// launch may be captured in a CUDA graph. Addresses are multiples of 16.
//
// A row has the same bits for every number of rows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace higgs_rt {

constexpr int kStreamMaxRows = 16;

// What the launchers need to know of a GPU.
struct StreamDevice {
  int multiprocessors = 0;
  std::size_t shared_bytes = 0;  // that one block may have
  // Compute capability, times 10, that the kernels' code was compiled for.
  int code = 0;
  // Clusters of two and of four blocks that run beside each other, one block in a multiprocessor; 0
  // before compute capability 9.0.
  int pairs = 0, fours = 0;
};
cudaError_t read_stream_device(int ordinal, StreamDevice& device);

struct StreamWeight {
  const __nv_bfloat16* data;  // [outputs, inputs]
  int outputs, inputs;        // inputs a multiple of 64
};

// Rows as they are.
struct PlainRows {
  const __nv_bfloat16* x;  // [rows, inputs]
  int rows;
};

// Rows of the residual stream, normalised: x / sqrt(mean(x^2) + eps) * norm.
struct NormRows {
  const float* x;              // [n, inputs]
  const std::int32_t* gather;  // [rows]: row i is x[gather[i]]; null: x[i]
  int rows;
  int text_rows;           // rows [0, text_rows) take text_norm
  const void* text_norm;   // [inputs], bf16 or fp32
  const void* audio_norm;  // [inputs]
  bool norm_is_bf16;
  float eps;
};

// Where queries, keys and values go; the weight's outputs are [Hq D + 2 Hk D].
struct QkvOutput {
  __nv_bfloat16* q;        // [rows, heads, dim]
  __nv_bfloat16* k_cache;  // [slots, kv_heads, dim]
  __nv_bfloat16* v_cache;
  const std::int32_t* position;  // [rows]; -1: not rotated
  const std::int32_t* slot;      // [rows]; -1: not stored
  const float* rope;             // [positions, dim / 2, 2]: cos, sin
  int heads, kv_heads, dim;
};

// Whether a GPU's shared memory is enough for products of 1 to kStreamMaxRows rows, all or none: a
// row's bits must not depend on how many there are. `dim` of QkvOutput, else 0.
bool stream_fits(const StreamDevice& device, int inputs, int dim);

// out = x weight^T.
cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const PlainRows& x, __nv_bfloat16* out, cudaStream_t stream);
cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const PlainRows& x, float* out, cudaStream_t stream);
cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const NormRows& x, float* out, cudaStream_t stream);
// out += x weight^T.
cudaError_t launch_stream_add(const StreamDevice& device, const StreamWeight& weight,
                              const PlainRows& x, float* out, cudaStream_t stream);
// out [rows, F] = silu(gate) * up, weight [2 F, inputs] gate first.
cudaError_t launch_stream_swiglu(const StreamDevice& device, const StreamWeight& weight,
                                 const NormRows& x, __nv_bfloat16* out, cudaStream_t stream);
// Rotated queries, rotated keys and values, where they belong.
cudaError_t launch_stream_qkv(const StreamDevice& device, const StreamWeight& weight,
                              const NormRows& x, const QkvOutput& out, cudaStream_t stream);

}  // namespace higgs_rt
