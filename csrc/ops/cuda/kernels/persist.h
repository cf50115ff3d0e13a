// All layers and the head of a decode step in one kernel, for 1 to 8 rows of the released shape in
// bf16. Launchers: device pointers, a stream; a launch may be captured in a CUDA graph.
//
// A row has the same bits for every number of rows and in every place.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/cuda/decode_stamps.h"
#include "ops/cuda/kernels/stream_linear.h"

namespace higgs_rt {

struct PersistLayer {
  const __nv_bfloat16* input_norm;
  const __nv_bfloat16* post_norm;
  __nv_bfloat16* k_cache;  // [slots, kv_heads, dim]
  __nv_bfloat16* v_cache;
};

constexpr int kOneKernelRows = 8;   // with more, the products of wide_linear.h are faster
constexpr int kPersistLayers = 28;  // at most: shared memory has room for their norms

struct PersistStep {
  // In the order of their use: for each layer q, k, v [(heads + 2 kv_heads) dim, hidden], o
  // [hidden, heads dim], gate and up [2 ffn, hidden], down [hidden, ffn]; then the head [outputs,
  // hidden].
  const __nv_bfloat16* matrices[4 * kPersistLayers + 1];
  PersistLayer layers[kPersistLayers];
  int num_layers;
  const __nv_bfloat16* final_norm;
  const float* hidden;           // [rows, hidden], the embedded rows
  float* logits;                 // [rows, head outputs]
  const std::int32_t* position;  // [rows]; -1: padding
  const std::int32_t* slot;      // [rows]; -1: not stored
  const std::int32_t* sequence;  // [rows], all different
  const std::int32_t* block_table;
  int block_tokens_log2, max_blocks;
  const float* rope;  // [positions, dim / 2, 2]: cos, sin
  float eps;
  int rows;
  // Memory between launches (persist_mail.cuh): every bit set at first; zeros at first; zeros.
  unsigned char* cells;  // [2, kOneKernelRows, persist_row_bytes()]
  unsigned char* parts;  // [persist_part_bytes()]
  std::uint32_t* state;  // [persist_state_bytes()]
  std::int64_t* stamps;  // null, or as in decode_stamps.h
};

// The only shape there is.
struct PersistShape {
  static constexpr int kHidden = 3072, kHeads = 24, kKvHeads = 8, kDim = 128, kFfn = 8192;
  static constexpr int kHead = 8208;
};

std::size_t persist_row_bytes(int layers);
std::size_t persist_part_bytes();
std::size_t persist_state_bytes();

// Whether all blocks of a launch run at a time on a GPU.
cudaError_t persist_fits(const StreamDevice& device, bool& fits);
cudaError_t launch_persist(const PersistStep& step, cudaStream_t stream);

}  // namespace higgs_rt
