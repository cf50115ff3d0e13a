// Launchers of the row operations (ops.h says what they compute): device pointers, sizes, a stream.
// `dtype` is the type of the pointers to void named before it, kF32 or kBF16. Every step-dependent
// value is read from device memory, so each launch may be captured in a CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace higgs_rt {

struct EmbedText {
  const void* table;  // [vocab, size] dtype
  DType dtype;
  const float* table_rows;  // [n, size]
  const std::int32_t* ids;  // [rows]
  float* out;               // [rows, size]
  std::int64_t rows, vocab, size;
};
cudaError_t launch_embed_text(const EmbedText& arguments, cudaStream_t stream);

// The columns of the rows: where `index` is null row i is given[i], otherwise given[index[i]] or,
// from StepBatch::kFeedback on, last[index[i] - kFeedback].
struct ColumnSource {
  const std::int32_t* index;  // [rows] or null
  const std::int32_t* given;  // [n, codebooks]
  const std::int32_t* last;   // [m, codebooks]
};
cudaError_t launch_gather_columns(const ColumnSource& source, std::int64_t rows,
                                  std::int64_t codebooks, std::int32_t* out, cudaStream_t stream);

struct EmbedColumns {
  const void* table;  // [codebooks * vocab, size] dtype
  DType dtype;
  ColumnSource source;
  float* out;  // [rows, size]
  std::int64_t rows, codebooks, vocab, size;
};
cudaError_t launch_embed_columns(const EmbedColumns& arguments, cudaStream_t stream);

struct RmsNorm {
  const float* x;      // [rows, size]
  const void* weight;  // [size] weight_dtype
  DType weight_dtype;
  void* out;  // [rows, size] out_dtype
  DType out_dtype;
  float eps;
  std::int64_t rows, size;
};
cudaError_t launch_rms_norm(const RmsNorm& arguments, cudaStream_t stream);

struct Rope {
  void* x;  // [rows, heads, dim] dtype
  DType dtype;
  const std::int32_t* positions;  // [rows]
  const float* table;             // [positions, dim / 2, 2]
  std::int64_t rows, heads, dim;
};
cudaError_t launch_rope(const Rope& arguments, cudaStream_t stream);

struct StoreKv {
  const void* k;  // [rows, row_bytes]
  const void* v;
  const std::int32_t* slots;  // [rows]
  void* k_cache;              // [slots, row_bytes]
  void* v_cache;
  std::int64_t rows, row_bytes;  // row_bytes is even
};
cudaError_t launch_store_kv(const StoreKv& arguments, cudaStream_t stream);

struct Swiglu {
  const void* gate;  // [size] dtype
  const void* up;
  void* out;
  DType dtype;
  std::int64_t size;
};
cudaError_t launch_swiglu(const Swiglu& arguments, cudaStream_t stream);

struct GatherRows {
  const float* x;            // [n, size]
  const std::int32_t* rows;  // [count]
  float* out;                // [count, size]
  std::int64_t count, size;
};
cudaError_t launch_gather_rows(const GatherRows& arguments, cudaStream_t stream);

}  // namespace higgs_rt
