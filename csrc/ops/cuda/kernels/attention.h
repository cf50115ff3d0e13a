// Launchers of attention over the paged cache (ops.h says what it computes).
//
// bf16 with a head size of 64 or 128 and up to 8 query heads for each key/value head goes to two
// kernels on the tensor cores: decode rows to one that splits the context, prompt rows to one that
// shares the context among rows of one sequence. The rest goes to a plain kernel. In each a row has
// the same bits whatever the other rows. Rows at position -1 are padding: their output is zero.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"

namespace higgs_rt {

struct AttentionShape {
  std::int64_t rows, query_heads, kv_heads, dim;
  std::int32_t block_tokens, max_blocks, sequences;
  std::uint32_t block_reciprocal;  // 2^32 / block_tokens, rounded down
  float scale;                     // of the scores: 1 / sqrt(dim)
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

// Any head size up to kMaxAttentionDim, fp32 or bf16: one block for each row and query head.
cudaError_t launch_attention_plain(const AttentionShape& shape, const AttentionData& data,
                                   cudaStream_t stream);

// A context is split into at most kMaxSplits pieces of a size that depends on its length alone, so
// that a row has the same bits in every batch.
inline constexpr std::int64_t kMaxSplits = 16;
inline constexpr std::int64_t kSplit = 128;  // positions, while a context has no more than
                                             // kMaxSplits of them; then twice that, and so on

inline constexpr std::int64_t kMaxGroup = 8;  // query heads for each key/value head

// A context goes to several blocks only while a step has fewer rows times key/value heads.
inline constexpr std::int64_t kMaxSplitItems = 2048;

// Rows of one sequence, one after another in a step of prompts.
struct alignas(16) AttentionTile {
  std::int32_t first, rows;  // 0 rows: no tile
  std::int32_t length;       // positions that they attend to
  std::int32_t sequence;
};

// Memory of the kernels for bf16, on the device. Counters are zero before and after every launch.
struct AttentionMemory {
  float* partial;           // [kMaxSplitItems, kMaxSplits, group, dim]
  float* scale;             // [kMaxSplitItems, kMaxSplits, group, 2]: largest score, total
  std::uint32_t* counters;  // [kMaxSplitItems]
  AttentionTile* plan;      // of a step with prompts, [its most tiles]
  int multiprocessors;      // of the device
  bool has_wgmma;           // compute capability 9.0
};

// A tile has room for kTileItems rows times query heads of a group.
inline constexpr int kTileItems = 64;
HIGGS_HOST_DEVICE inline int tile_rows(const AttentionShape& shape) {
  return kTileItems / static_cast<int>(shape.query_heads / shape.kv_heads);
}

inline bool has_tensor_core_attention(const AttentionShape& shape, DType dtype) {
  return dtype == DType::kBF16 && (shape.dim == 64 || shape.dim == 128) &&
         shape.query_heads <= kMaxGroup * shape.kv_heads;
}

// Once per device, before the first launch of the kernels below.
cudaError_t prepare_attention_decode();
cudaError_t prepare_attention_prefill(AttentionMemory& memory);  // sets has_wgmma

cudaError_t launch_attention_decode(const AttentionShape& shape, const AttentionData& data,
                                    const AttentionMemory& memory, cudaStream_t stream);
// Prompt rows: the plan, then for each layer its tiles, of which there are at most `tiles` <= rows.
// A tile ends with its sequence or after tile_rows().
cudaError_t launch_attention_plan(const AttentionShape& shape, const AttentionData& data,
                                  const AttentionMemory& memory, std::int64_t tiles,
                                  cudaStream_t stream);
cudaError_t launch_attention_prefill(const AttentionShape& shape, const AttentionData& data,
                                     const AttentionMemory& memory, std::int64_t tiles,
                                     cudaStream_t stream);

// The same with wgmma, for heads of 128 numbers on compute capability 9.0; called by
// launch_attention_prefill(). A row's bits are others than without.
cudaError_t prepare_attention_prefill_90();
cudaError_t launch_attention_prefill_90(const AttentionShape& shape, const AttentionData& data,
                                        const AttentionMemory& memory, std::int64_t tiles,
                                        cudaStream_t stream);

// Decode rows, as many that every block has a whole context, with the same bits; called by
// launch_attention_decode().
bool attention_whole_takes(const AttentionShape& shape, const AttentionMemory& memory);
cudaError_t prepare_attention_whole();
cudaError_t launch_attention_whole(const AttentionShape& shape, const AttentionData& data,
                                   const AttentionMemory& memory, cudaStream_t stream);

}  // namespace higgs_rt
