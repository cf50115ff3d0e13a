// Pieces of attention on wgmma (sm_90a).
#pragma once

#include <cstdint>

namespace higgs_rt {

// 2^x; 0 below the normal numbers.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The values of 16 positions as a right factor whose numbers lie one after another in each
// position: 64 numbers further on are `half_bytes` away, 8 positions 1,024 bytes.
__device__ inline std::uint64_t values_at(std::uint32_t address, int half_bytes) {
  const std::uint64_t half = static_cast<unsigned>(half_bytes) >> 4, eight_rows = 1024 >> 4;
  const std::uint64_t swizzle128 = 1;
  return (address & 0x3FFFFu) >> 4 | half << 16 | eight_rows << 32 | swizzle128 << 62;
}

#define HIGGS_8(i)                                                                      \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), \
      "+f"(sum[i + 5]), "+f"(sum[i + 6]), "+f"(sum[i + 7])
// sum [64, 128] += weights [64, 16] values [16, 128]; not finished when it returns, and until then
// the weights must stay.
__device__ inline void multiply_values(float (&sum)[64], const std::uint32_t (&weight)[4],
                                       std::uint64_t values) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
      : HIGGS_8(0), HIGGS_8(8), HIGGS_8(16), HIGGS_8(24), HIGGS_8(32), HIGGS_8(40), HIGGS_8(48),
        HIGGS_8(56)
      : "r"(weight[0]), "r"(weight[1]), "r"(weight[2]), "r"(weight[3]), "l"(values));
}
#undef HIGGS_8

}  // namespace higgs_rt
