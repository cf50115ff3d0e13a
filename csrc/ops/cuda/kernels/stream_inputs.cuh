// How the rows of a weight-streaming product come into shared memory, in the order of the matrix
// instruction: for every 32 inputs and every 8 rows, 16 bytes for each lane of a warp, which are
// inputs 8 (lane % 4) to 8 (lane % 4) + 7 of row lane / 4. The weights come in the same order.
#pragma once

#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/stream_parts.cuh"

namespace higgs_rt::stream {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kChunk = 64;        // inputs of one step of a warp: two of its matrix instruction's
constexpr int kChunkBytes = 128;  // of one row
constexpr int kPieces = kChunk / 8;
// Pieces of 8 inputs of each row that a lane fetches before it uses the first.
constexpr int kBatch = 4;
template <int kN>
constexpr int kNormBatch = kN == 8 ? 3 : 2;

// Place of piece `piece` (8 inputs) of row n among the rows of a block.
template <int kN>
__device__ inline std::uint32_t fragment(std::uint32_t base, int piece, int n) {
  return base + static_cast<std::uint32_t>(((piece / 4) * (kN / 8) + n / 8) * 512 + (n % 8) * 64 +
                                           (piece % 4) * 16);
}

// Rows that do not exist are zeros.
template <int kN>
__device__ inline void clear_rows(std::uint32_t base, int rows, int pieces) {
  for (int n = rows + static_cast<int>(threadIdx.x) / 32; n < kN; n += kWarps) {
    for (int p = static_cast<int>(threadIdx.x) % 32; p < pieces; p += 32) {
      store_shared(fragment<kN>(base, p, n), make_uint4(0, 0, 0, 0));
    }
  }
}

struct PlainInput {
  static constexpr bool kNorm = false;
  PlainRows rows;

  // Brings inputs [8 piece_begin, 8 (piece_begin + pieces)) of all rows.
  template <int kN>
  __device__ void stage(std::uint32_t base, float*, int inputs, int piece_begin, int pieces) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int kRows = kN / kWarps;  // of a warp
    for (int p = lane; p < pieces; p += 32 * kBatch) {
      uint4 value[kRows][kBatch];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int n = warp + kWarps * r;
        const auto* row = reinterpret_cast<const uint4*>(rows.x + std::int64_t{n} * inputs);
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
          const int piece = p + 32 * j;
          if (n < rows.rows && piece < pieces) value[r][j] = row[piece_begin + piece];
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int n = warp + kWarps * r;
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
          const int piece = p + 32 * j;
          if (n < rows.rows && piece < pieces) {
            store_shared(fragment<kN>(base, piece, n), value[r][j]);
          }
        }
      }
    }
  }
  __device__ float scale(const float*, int, unsigned, int) const { return 1.0f; }
};

// The product is of x * norm; the factor 1 / sqrt(mean(x^2) + eps) of a row comes last, so that the
// blocks of a cluster need each other's part of the sum of squares only then.
struct NormInput {
  static constexpr bool kNorm = true;
  NormRows rows;

  // What one lane has of a row.
  template <int kCount>
  struct Share {
    const float* row = nullptr;
    const void* norm = nullptr;
    float sum = 0.0f;
    Pack<float, 4> low[kPieces], high[kCount];
    Pack<bf16, 8> weight[kCount];
  };

  template <int kCount>
  __device__ void open(Share<kCount>& share, int n, int inputs) const {
    if (n >= rows.rows) return;
    const std::int64_t index = rows.gather == nullptr ? n : max(rows.gather[n], 0);
    share.row = rows.x + index * inputs;
    share.norm = n < rows.text_rows ? rows.text_norm : rows.audio_norm;
  }
  // Fetches pieces p, p + 32, ... below `end`.
  template <int kCount>
  __device__ void fetch(Share<kCount>& share, int p, int end) const {
    if (share.row == nullptr) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int piece = p + 32 * j;
      if (piece >= end) continue;
      share.low[j] = load_pack<4>(share.row + 8 * piece);
      share.high[j] = load_pack<4>(share.row + 8 * piece + 4);
      if (rows.norm_is_bf16) {
        share.weight[j] = load_pack<8>(static_cast<const bf16*>(share.norm) + 8 * piece);
      }
    }
  }
  template <int kCount>
  __device__ float norm_at(const Share<kCount>& share, int j, int piece, int i) const {
    return rows.norm_is_bf16 ? number(share.weight[j].item[i])
                             : static_cast<const float*>(share.norm)[8 * piece + i];
  }
  template <int kN, int kCount>
  __device__ void put(Share<kCount>& share, std::uint32_t base, int n, int begin, int p,
                      int end) const {
    if (share.row == nullptr) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int piece = p + 32 * j;
      if (piece >= end) continue;
      float value[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        value[i] = i < 4 ? share.low[j].item[i] : share.high[j].item[i - 4];
        share.sum = fmaf(value[i], value[i], share.sum);
        value[i] *= norm_at(share, j, piece, i);
      }
      store_shared(fragment<kN>(base, piece - begin, n),
                   make_uint4(packed(value[0], value[1]), packed(value[2], value[3]),
                              packed(value[4], value[5]), packed(value[6], value[7])));
    }
  }

  // squares[n]: the sum of squares of the inputs brought.
  template <int kN>
  __device__ void stage(std::uint32_t base, float* squares, int inputs, int begin,
                        int pieces) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int kRows = kN / kWarps;  // of a warp
    constexpr int kCount = kNormBatch<kN>;
    Share<kCount> share[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) open(share[r], warp + kWarps * r, inputs);
    const int end = begin + pieces;
    for (int p = begin + lane; p < end; p += 32 * kCount) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) fetch(share[r], p, end);
#pragma unroll
      for (int r = 0; r < kRows; ++r) put<kN>(share[r], base, warp + kWarps * r, begin, p, end);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = share[r].sum;
      for (int offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (lane == 0 && share[r].row != nullptr) squares[warp + kWarps * r] = sum;
    }
  }

  // squares [blocks of the cluster][stride].
  __device__ float scale(const float* squares, int stride, unsigned blocks, int inputs) const {
    float sum = 0.0f;
    for (unsigned b = 0; b < blocks; ++b) sum += squares[static_cast<int>(b) * stride];
    return 1.0f / sqrtf(sum / static_cast<float>(inputs) + rows.eps);
  }
};

}  // namespace higgs_rt::stream
