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

// What a block brings: inputs [8 begin, 8 (begin + pieces)) of all rows, to `base`; `norms` is for
// the input's own use (norm_bytes()).
struct Part {
  std::uint32_t base, norms;
  int inputs, begin, pieces;
};

struct PlainInput {
  static constexpr bool kNorm = false;
  PlainRows rows;

  __host__ __device__ int norm_bytes(int) const { return 0; }
  __device__ void open(const Part&) const {}
  template <int kN>
  __device__ void stage(const Part& part, float*) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int kRows = kN / kWarps, kCount = 4;  // of a warp; pieces of a row under way
    for (int p = lane; p < part.pieces; p += 32 * kCount) {
      uint4 value[kRows][kCount];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int n = warp + kWarps * r;
        const auto* row = reinterpret_cast<const uint4*>(rows.x + std::int64_t{n} * part.inputs);
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
          const int piece = p + 32 * j;
          if (n < rows.rows && piece < part.pieces) value[r][j] = row[part.begin + piece];
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int n = warp + kWarps * r;
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
          const int piece = p + 32 * j;
          if (n < rows.rows && piece < part.pieces) {
            store_shared(fragment<kN>(part.base, piece, n), value[r][j]);
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

  // Both norms where the rows are of both modalities, the text's first.
  __host__ __device__ int norms() const {
    return rows.text_rows > 0 && rows.text_rows < rows.rows ? 2 : 1;
  }
  __host__ __device__ int bytes_of(int pieces) const {
    return 8 * pieces * (rows.norm_is_bf16 ? 2 : 4);
  }
  __host__ __device__ int norm_bytes(int pieces) const { return norms() * bytes_of(pieces); }

  // Asks for the norms, before any weights: behind them they would come microseconds later.
  __device__ void open(const Part& part) const {
    const int bytes = bytes_of(part.pieces), start = bytes_of(part.begin);
    for (int k = 0; k < norms(); ++k) {
      const void* norm = k == 0 && rows.text_rows > 0 ? rows.text_norm : rows.audio_norm;
      const auto to = part.norms + static_cast<std::uint32_t>(k * bytes);
      for (int at = 16 * static_cast<int>(threadIdx.x); at < bytes; at += 16 * kThreads) {
        higgs_rt::copy_async(to + static_cast<std::uint32_t>(at),
                             static_cast<const char*>(norm) + start + at, true);
      }
    }
    copy_async_commit();
  }

  // Number i of 8 of a piece of the norm of row n.
  __device__ void read_norm(const Part& part, int n, int piece, float (&norm)[8]) const {
    const int k = norms() == 2 && n >= rows.text_rows ? 1 : 0;
    const auto at =
        part.norms + static_cast<std::uint32_t>(k * bytes_of(part.pieces) + bytes_of(piece));
    const uint4 first = load_shared(at);
    const std::uint32_t low[4] = {first.x, first.y, first.z, first.w};
    if (rows.norm_is_bf16) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        norm[i] = __uint_as_float(i % 2 == 0 ? low[i / 2] << 16 : low[i / 2] & 0xffff0000u);
      }
      return;
    }
    const uint4 second = load_shared(at + 16);
    const std::uint32_t high[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) norm[i] = __uint_as_float(i < 4 ? low[i % 4] : high[i % 4]);
  }

  // What one lane has of a row.
  template <int kCount>
  struct Share {
    const float* row = nullptr;  // null: no such row
    float sum = 0.0f;
    Pack<float, 4> low[kCount], high[kCount];
  };

  // Fetches pieces p, p + 32, ... of the block's part of a row.
  template <int kCount>
  __device__ void fetch(Share<kCount>& share, const Part& part, int p) const {
    if (share.row == nullptr) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int piece = p + 32 * j;
      if (piece >= part.pieces) continue;
      share.low[j] = load_pack<4>(share.row + 8 * piece);
      share.high[j] = load_pack<4>(share.row + 8 * piece + 4);
    }
  }
  template <int kN, int kCount>
  __device__ void put(Share<kCount>& share, const Part& part, int n, int p) const {
    if (share.row == nullptr) return;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int piece = p + 32 * j;
      if (piece >= part.pieces) continue;
      float norm[8], value[8];
      read_norm(part, n, piece, norm);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float x = i < 4 ? share.low[j].item[i % 4] : share.high[j].item[i % 4];
        share.sum = fmaf(x, x, share.sum);
        value[i] = x * norm[i];
      }
      store_shared(fragment<kN>(part.base, piece, n),
                   make_uint4(packed(value[0], value[1]), packed(value[2], value[3]),
                              packed(value[4], value[5]), packed(value[6], value[7])));
    }
  }

  // squares[n]: the sum of squares of the inputs brought.
  template <int kN>
  __device__ void stage(const Part& part, float* squares) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int kRows = kN / kWarps, kCount = kN == 8 ? 6 : 3;  // of a warp; pieces under way
    Share<kCount> share[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int n = warp + kWarps * r;
      if (n >= rows.rows) continue;
      const std::int64_t index = rows.gather == nullptr ? n : max(rows.gather[n], 0);
      share[r].row = rows.x + index * part.inputs + 8 * part.begin;
    }
    for (int p = lane; p < part.pieces; p += 32 * kCount) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) fetch(share[r], part, p);
#pragma unroll
      for (int r = 0; r < kRows; ++r) put<kN>(share[r], part, warp + kWarps * r, p);
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
