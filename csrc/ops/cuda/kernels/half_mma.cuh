// Tensor-core products of fp16 tiles in shared memory.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ops/cuda/kernels/async_copy.cuh"

namespace higgs_rt {

// A tile: rows of kWidth halves (32 or 64), in pieces of 16 bytes that are placed so that eight
// rows one after another, from any row on, lie in different banks.
template <int kWidth>
struct HalfTile {
  static constexpr int kPieces = kWidth / 8;
  static constexpr int kRowBytes = kWidth * 2;

  __device__ static std::uint32_t key(std::uint32_t row) {
    return kWidth == 64 ? row & 7u : (row >> 1) & 3u;
  }
  __device__ static std::uint32_t offset(std::uint32_t row, std::uint32_t piece) {
    return row * kRowBytes + ((piece ^ key(row)) << 4);
  }
};

__device__ inline void load_matrices(std::uint32_t (&out)[4], std::uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared));
}

// sum [16, 8] += a [16, 16] b [16, 8].
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum += the products of one warp: rows first_x.. of tile x, rows first_w.. of tile w (both [row,
// channel]). kTilesM times 16 rows of x, kTilesN times 8 rows of w, kWidth channels.
template <int kWidth, int kTilesM, int kTilesN>
__device__ inline void multiply_tiles(std::uint32_t x, int first_x, std::uint32_t w, int first_w,
                                      float (&sum)[kTilesM][kTilesN][4]) {
  using Tile = HalfTile<kWidth>;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t row_x = first_x + (lane & 15);
  const std::uint32_t row_w = first_w + ((lane >> 4) << 3) + (lane & 7);
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k) {
    // Steps of 16 rows do not change key(): one offset serves all tiles.
    const std::uint32_t at_x = x + Tile::offset(row_x, 2 * k + (lane >> 4));
    const std::uint32_t at_w = w + Tile::offset(row_w, 2 * k + ((lane >> 3) & 1));
    std::uint32_t a[kTilesM][4], b[kTilesN / 2][4];
#pragma unroll
    for (int m = 0; m < kTilesM; ++m) load_matrices(a[m], at_x + m * 16 * Tile::kRowBytes);
#pragma unroll
    for (int n = 0; n < kTilesN / 2; ++n) load_matrices(b[n], at_w + n * 16 * Tile::kRowBytes);
#pragma unroll
    for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        multiply_add(sum[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

}  // namespace higgs_rt
