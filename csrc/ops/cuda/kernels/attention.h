// Launchers of attention over the paged cache (ops.h says what it computes).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/dtype.h"

namespace higgs_rt {

struct AttentionShape {
  std::int64_t rows, query_heads, kv_heads, dim;
  std::int32_t block_tokens, max_blocks;
  float scale;  // of the scores: 1 / sqrt(dim)
};

struct AttentionData {
  const void* q;        // [rows, query_heads, dim] dtype
  const void* k_cache;  // [slots, kv_heads, dim] dtype
  const void* v_cache;
  const std::int32_t* sequence;     // [rows]
  const std::int32_t* position;     // [rows]
  const std::int32_t* block_table;  // [sequences, max_blocks]
  void* out;                        // [rows, query_heads, dim] dtype
  DType dtype;
};

inline constexpr std::int64_t kMaxAttentionDim = 256;

// Any head size up to kMaxAttentionDim, fp32 or bf16: one block for each row and query head. A row
// has the same bits in every batch.
cudaError_t launch_attention_plain(const AttentionShape& shape, const AttentionData& data,
                                   cudaStream_t stream);

}  // namespace higgs_rt
