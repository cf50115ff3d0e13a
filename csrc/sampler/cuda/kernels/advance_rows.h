// Launcher of the sampling kernel: raw pointers, sizes and a stream. The launch may be captured in
// a CUDA graph: nothing in it depends on the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "sampler/row_state.h"

namespace higgs_rt {

struct AdvanceRows {
  RowState* states;            // [max_rows]
  std::int32_t* last_columns;  // [max_rows, num_codebooks]
  const float* logits;         // [num_rows, num_codebooks, codebook_vocab]
  // [num_rows], each row once; -1: none, nothing is written.
  const std::int32_t* rows;
  // [2, max_rows, num_codebooks + 1], out, pinned host memory: the column of each row and its flags
  // (bit 0 finished, bit 1 failed). A row's steps go to the two halves in turn, by RowState::turn.
  std::int32_t* results;
  std::int32_t max_rows;
  std::int32_t num_rows;
  std::int32_t num_codebooks;  // at most kMaxCodebooks
  std::int32_t codebook_vocab;
};

// Shared memory that one block needs at most: keys and weights of all codebooks of a row.
inline std::size_t advance_rows_shared_bytes(std::int32_t num_codebooks,
                                             std::int32_t codebook_vocab) {
  return 2 * sizeof(std::uint32_t) * static_cast<std::size_t>(num_codebooks) *
         static_cast<std::size_t>(codebook_vocab);
}

// Before the first launch on a GPU whose blocks may have `block_bytes` of shared memory: allows all
// that the kernel itself leaves of them, which is `usable`.
cudaError_t prepare_advance_rows(std::size_t block_bytes, std::size_t& usable);

cudaError_t launch_advance_rows(const AdvanceRows& arguments, cudaStream_t stream);

}  // namespace higgs_rt
