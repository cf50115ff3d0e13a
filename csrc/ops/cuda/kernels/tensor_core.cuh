// The matrix instructions of compute capability 8.0. Tiles in shared memory are rows of 16-byte
// chunks; chunk c of row r is kept at chunk c ^ (r % 8), so that eight rows of one chunk lie in
// different banks.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/kernels/async_copy.cuh"

namespace higgs_rt {

// Byte offset of chunk `chunk` of row `row` in a tile of rows of `RowBytes` >= 128.
template <int RowBytes>
__device__ inline std::uint32_t chunk_offset(int row, int chunk) {
  return static_cast<std::uint32_t>(row * RowBytes + ((chunk ^ (row & 7)) << 4));
}

// Four 8 x 8 matrices of bf16; lane l gives the address of row l % 8 of matrix l / 8.
struct Matrices {
  std::uint32_t part[4];
};
__device__ inline Matrices load_matrices(std::uint32_t address) {
  Matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.part[0]), "=r"(m.part[1]), "=r"(m.part[2]), "=r"(m.part[3])
               : "r"(address)
               : "memory");
  return m;
}
__device__ inline Matrices load_matrices_transposed(std::uint32_t address) {
  Matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.part[0]), "=r"(m.part[1]), "=r"(m.part[2]), "=r"(m.part[3])
               : "r"(address)
               : "memory");
  return m;
}

// c [16, 8] += a [16, 16] b [16, 8], fp32 += bf16 * bf16.
__device__ inline void multiply_add(float (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                    std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Two numbers as bf16, `low` in the low half.
__device__ inline std::uint32_t packed(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

}  // namespace higgs_rt
