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
constexpr int kChunk = 32;       // inputs of one step of a warp
constexpr int kChunkBytes = 64;  // of one row
constexpr int kBatch = 4;        // 16-byte pieces that a lane fetches before it uses the first

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
#pragma unroll
    for (int r = 0; r < kN / kWarps; ++r) {
      const int n = warp + kWarps * r;
      if (n >= rows.rows) break;
      const auto* row = reinterpret_cast<const uint4*>(rows.x + std::int64_t{n} * inputs);
      for (int p = lane; p < pieces; p += 32 * kBatch) {
        uint4 value[kBatch];
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
          if (p + 32 * j < pieces) value[j] = row[piece_begin + p + 32 * j];
        }
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
          if (p + 32 * j < pieces) store_shared(fragment<kN>(base, p + 32 * j, n), value[j]);
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

  __device__ void load_norm(float (&out)[8], const void* norm, int piece) const {
    if (rows.norm_is_bf16) {
      const auto pack = load_pack<8>(static_cast<const bf16*>(norm) + 8 * piece);
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = number(pack.item[i]);
    } else {
      const auto low = load_pack<4>(static_cast<const float*>(norm) + 8 * piece);
      const auto high = load_pack<4>(static_cast<const float*>(norm) + 8 * piece + 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = low.item[i], out[i + 4] = high.item[i];
    }
  }

  // squares[n]: the sum of squares of the inputs brought.
  template <int kN>
  __device__ void stage(std::uint32_t base, float* squares, int inputs, int piece_begin,
                        int pieces) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int r = 0; r < kN / kWarps; ++r) {
      const int n = warp + kWarps * r;
      if (n >= rows.rows) break;
      const std::int64_t index = rows.gather == nullptr ? n : max(rows.gather[n], 0);
      const float* row = rows.x + index * inputs + 8 * piece_begin;
      const void* norm = n < rows.text_rows ? rows.text_norm : rows.audio_norm;
      float sum = 0.0f;
      for (int p = lane; p < pieces; p += 32 * kBatch)
        sum += batch<kN>(base, row, norm, piece_begin, p, pieces, n);
      for (int offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (lane == 0) squares[n] = sum;
    }
  }

  template <int kN>
  __device__ float batch(std::uint32_t base, const float* row, const void* norm, int piece_begin,
                         int p, int pieces, int n) const {
    Pack<float, 4> low[kBatch], high[kBatch];
    float weight[kBatch][8];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int piece = p + 32 * j;
      if (piece >= pieces) continue;
      low[j] = load_pack<4>(row + 8 * piece);
      high[j] = load_pack<4>(row + 8 * piece + 4);
      load_norm(weight[j], norm, piece_begin + piece);
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int piece = p + 32 * j;
      if (piece >= pieces) continue;
      const float* w = weight[j];
      const float *a = low[j].item, *b = high[j].item;
#pragma unroll
      for (int i = 0; i < 4; ++i) sum = fmaf(a[i], a[i], sum);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum = fmaf(b[i], b[i], sum);
      store_shared(
          fragment<kN>(base, piece, n),
          make_uint4(pack_bf16(a[0] * w[0], a[1] * w[1]), pack_bf16(a[2] * w[2], a[3] * w[3]),
                     pack_bf16(b[0] * w[4], b[1] * w[5]), pack_bf16(b[2] * w[6], b[3] * w[7])));
    }
    return sum;
  }

  // squares [blocks of the cluster][stride].
  __device__ float scale(const float* squares, int stride, unsigned blocks, int inputs) const {
    float sum = 0.0f;
    for (unsigned b = 0; b < blocks; ++b) sum += squares[static_cast<int>(b) * stride];
    return 1.0f / sqrtf(sum / static_cast<float>(inputs) + rows.eps);
  }
};

}  // namespace higgs_rt::stream
