// Products of groups of four warps whose first factor is in registers (wgmma; sm_90a only), and
// copies of their second factors by the copy engine.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels/barrier.cuh"
#include "ops/cuda/kernels/wgmma.cuh"

namespace higgs_rt {

#define HIGGS_FOUR(j) "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])

// sum [64, 128] += x [64, 16] w [16, 128] of four warps; not finished when it returns, and until
// then x must stay.
__device__ inline void multiply_group(const std::uint32_t (&x)[4], std::uint64_t w,
                                      float (&sum)[16][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3), HIGGS_FOUR(4), HIGGS_FOUR(5),
        HIGGS_FOUR(6), HIGGS_FOUR(7), HIGGS_FOUR(8), HIGGS_FOUR(9), HIGGS_FOUR(10), HIGGS_FOUR(11),
        HIGGS_FOUR(12), HIGGS_FOUR(13), HIGGS_FOUR(14), HIGGS_FOUR(15)
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(w));
}

// The same with 64 and with 32 columns.
__device__ inline void multiply_group(const std::uint32_t (&x)[4], std::uint64_t w,
                                      float (&sum)[8][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3), HIGGS_FOUR(4), HIGGS_FOUR(5),
        HIGGS_FOUR(6), HIGGS_FOUR(7)
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(w));
}

__device__ inline void multiply_group(const std::uint32_t (&x)[4], std::uint64_t w,
                                      float (&sum)[4][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3)
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(w));
}

// The same with both factors in shared memory.
__device__ inline void multiply_group(std::uint64_t x, std::uint64_t w, float (&sum)[32][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      " %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      " %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      " %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "
      " %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      " %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "
      " %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
      " %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
      " %124, %125, %126, %127}, "
      "%128, %129, 1, 1, 1, 0, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3), HIGGS_FOUR(4), HIGGS_FOUR(5),
        HIGGS_FOUR(6), HIGGS_FOUR(7), HIGGS_FOUR(8), HIGGS_FOUR(9), HIGGS_FOUR(10), HIGGS_FOUR(11),
        HIGGS_FOUR(12), HIGGS_FOUR(13), HIGGS_FOUR(14), HIGGS_FOUR(15), HIGGS_FOUR(16),
        HIGGS_FOUR(17), HIGGS_FOUR(18), HIGGS_FOUR(19), HIGGS_FOUR(20), HIGGS_FOUR(21),
        HIGGS_FOUR(22), HIGGS_FOUR(23), HIGGS_FOUR(24), HIGGS_FOUR(25), HIGGS_FOUR(26),
        HIGGS_FOUR(27), HIGGS_FOUR(28), HIGGS_FOUR(29), HIGGS_FOUR(30), HIGGS_FOUR(31)
      : "l"(x), "l"(w));
}

__device__ inline void multiply_group(std::uint64_t x, std::uint64_t w, float (&sum)[16][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      " %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      " %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      " %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, 0, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3), HIGGS_FOUR(4), HIGGS_FOUR(5),
        HIGGS_FOUR(6), HIGGS_FOUR(7), HIGGS_FOUR(8), HIGGS_FOUR(9), HIGGS_FOUR(10), HIGGS_FOUR(11),
        HIGGS_FOUR(12), HIGGS_FOUR(13), HIGGS_FOUR(14), HIGGS_FOUR(15)
      : "l"(x), "l"(w));
}

__device__ inline void multiply_group(std::uint64_t x, std::uint64_t w, float (&sum)[8][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17,"
      " %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, 0, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3), HIGGS_FOUR(4), HIGGS_FOUR(5),
        HIGGS_FOUR(6), HIGGS_FOUR(7)
      : "l"(x), "l"(w));
}

__device__ inline void multiply_group(std::uint64_t x, std::uint64_t w, float (&sum)[4][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, 1, 1, 1, 0, 0;\n"
      : HIGGS_FOUR(0), HIGGS_FOUR(1), HIGGS_FOUR(2), HIGGS_FOUR(3)
      : "l"(x), "l"(w));
}

__device__ inline void multiply_group(std::uint64_t x, std::uint64_t w, float (&sum)[1][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;\n"
      : HIGGS_FOUR(0)
      : "l"(x), "l"(w));
}

#undef HIGGS_FOUR

// An address in shared memory as factors name it: in 16 bytes.
__device__ inline std::uint32_t factor_address(std::uint32_t address) {
  return (address & 0x3FFFFu) >> 4;
}
// Sixteen rows of factors for `columns` outputs at `address`, without swizzling: blocks of 8
// outputs by 16 bytes, the blocks of one piece of 8 channels one after another, then those of the
// next.
__device__ inline std::uint64_t group_factors_at(std::uint32_t at, int columns) {  // in 16 bytes
  const std::uint64_t piece = columns, block = 8;  // distances in 16 bytes
  return at | piece << 16 | block << 32;
}
__device__ inline std::uint64_t group_factors(std::uint32_t address, int columns) {
  return group_factors_at(factor_address(address), columns);
}

// Rows of 16 channels of a tile of HalfTile<kWidth>, from any row on; `at` is its factor_address().
// The tile begins at a multiple of 1,024 bytes.
template <int kWidth>
__device__ std::uint64_t tile_factors(std::uint32_t at) {
  static_assert(kWidth == 64 || kWidth == 32);
  constexpr std::uint64_t kSwizzle = kWidth == 64 ? 1 : 2, kEightRows = kWidth;
  return at | std::uint64_t{1} << 16 | kEightRows << 32 | kSwizzle << 62;
}

// The compiler moves nothing that reads or writes `sum` over this point.
template <int kTiles>
__device__ void hold(float (&sum)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    asm volatile("" : "+f"(sum[n][0]), "+f"(sum[n][1]), "+f"(sum[n][2]), "+f"(sum[n][3])::"memory");
  }
}
// Of products that add to `sum`.
template <int kTiles>
__device__ void group_begin(float (&sum)[kTiles][4]) {
  hold(sum);
  begin_products();
}
template <int kPending, int kTiles>
__device__ void group_wait(float (&sum)[kTiles][4]) {
  wait_products<kPending>();
  hold(sum);
}

// --- Copies, each with a barrier in shared memory that it completes once ------------------------

// By one thread. Addresses and `bytes` are multiples of 16.
__device__ inline void copy_bulk(std::uint32_t to, const void* from, int bytes,
                                 std::uint32_t barrier) {
  expect_bytes(barrier, static_cast<unsigned>(bytes));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
}  // namespace higgs_rt
