// How the blocks of the persistent kernel give each other numbers: through cells of global memory
// that say themselves whether they have been written.
//
// Every number of a step has a place of its own, which begins as all bits set: no result of this
// kernel (rounding gives other NaNs). Whoever needs a number reads its place until something else
// stands there. So nothing has to be ordered with anything: no fence, which would wait for the
// weights under way, no counter, no barrier of the grid; a stage costs one store and one load.
// There are two sets of cells, of even and of odd launches: a launch clears what the one before it
// wrote.
#pragma once

#include "ops/cuda/kernels/persist.h"
#include "ops/cuda/kernels/stream_inputs.cuh"

namespace higgs_rt::persist {

using stream::bf16;
using Shape = PersistShape;

constexpr int kRows = kOneKernelRows;  // of a launch: those of one tensor core instruction
static_assert(kRows == 8);
constexpr std::uint32_t kEmpty = 0xffffffffu;
constexpr int kGroup = Shape::kHeads / Shape::kKvHeads;
constexpr int kHeadBytes = 2 * Shape::kDim;
constexpr int kParts = Shape::kHidden / 16;  // sums of squares of a row

// Cells of a row and layer, in bytes; the final norm's input is in those of one more layer.
constexpr int kInputCells = 0;  // bf16 [hidden]: the residual stream * input norm
constexpr int kQueryCells = kInputCells + 2 * Shape::kHidden;  // bf16 [heads, dim], rotated
constexpr int kKeyCells = kQueryCells + Shape::kHeads * kHeadBytes;
constexpr int kValueCells = kKeyCells + Shape::kKvHeads * kHeadBytes;
constexpr int kAttendedCells = kValueCells + Shape::kKvHeads * kHeadBytes;
constexpr int kFfnCells = kAttendedCells + Shape::kHeads * kHeadBytes;  // * post attention norm
constexpr int kActivatedCells = kFfnCells + 2 * Shape::kHidden;         // bf16 [ffn]
constexpr int kInputSquares = kActivatedCells + 2 * Shape::kFfn;        // fp32 [kParts]
constexpr int kFfnSquares = kInputSquares + 4 * kParts;
constexpr int kLayerBytes = kFfnSquares + 4 * kParts;

// Attention of a context over several blocks (persist_attention.cuh): of every row and key/value
// head up to kMaxPieces pieces.
constexpr int kMaxPieces = 16;
constexpr int kPartCells = Shape::kDim + 2;

__device__ inline uint4 read_cell(const unsigned char* cell) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(cell)
               : "memory");
  return v;
}
__device__ inline std::uint32_t read_word(const unsigned char* cell) {
  std::uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(cell) : "memory");
  return v;
}
__device__ inline void write_cell(unsigned char* cell, const uint4& v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(cell), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline void write_word(unsigned char* cell, std::uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(cell), "r"(v) : "memory");
}
__device__ inline bool is_there(const uint4& v) {
  return v.x != kEmpty && v.y != kEmpty && v.z != kEmpty && v.w != kEmpty;
}
__device__ inline uint4 wait_cell(const unsigned char* cell) {
  uint4 v = read_cell(cell);
  while (!is_there(v)) v = read_cell(cell);
  return v;
}

// The words of the four lanes of this lane's group, in order.
__device__ inline uint4 join_words(std::uint32_t word) {
  const int first = static_cast<int>(threadIdx.x) % 32 & ~3;
  uint4 v;
  v.x = __shfl_sync(0xffffffffu, word, first);
  v.y = __shfl_sync(0xffffffffu, word, first + 1);
  v.z = __shfl_sync(0xffffffffu, word, first + 2);
  v.w = __shfl_sync(0xffffffffu, word, first + 3);
  return v;
}

// The cells of this launch.
struct Mail {
  unsigned char* base;  // row 0, layer 0
  std::int64_t row_bytes;

  __device__ unsigned char* cell(int row, int layer, int offset) const {
    return base + row * row_bytes + layer * kLayerBytes + offset;
  }
};

}  // namespace higgs_rt::persist
