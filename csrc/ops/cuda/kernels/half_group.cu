// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/half_conv_kernel.cuh"
#include "ops/cuda/kernels/half_group.h"
#include "ops/cuda/kernels/half_unit_kernel.cuh"

namespace higgs_rt {

namespace {

#define HIGGS_FOUR(j) "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])

// sum [64, 128] += x [64, 16] w [16, 128] of four warps; not finished when it returns, and until
// then x must stay.
__device__ void multiply_group(const std::uint32_t (&x)[4], std::uint64_t w, float (&sum)[16][4]) {
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

#undef HIGGS_FOUR

// The times come from registers, because a tap may begin at any row; the weights from shared memory
// as wgmma reads it without swizzling: blocks of 8 outputs by 16 bytes, the blocks of one piece of
// 8 channels one after another, the pieces one after another.
template <int kTapsOf>
struct GroupShape : HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, 3> {
  using Sizes = HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, 3>;
  using Tile = HalfTile<kGroupChannels>;
  static constexpr int kTilesM = 2, kTilesN = 16;
  static constexpr bool kAsync = true;

  static constexpr __host__ __device__ int tile_bytes(int rows) { return rows * Tile::kRowBytes; }
  static __device__ std::uint32_t offset(int row, int piece, int) {
    return Tile::offset(row, piece);
  }
  static __device__ std::uint32_t weight_offset(int i) { return i * 16; }  // packed in this order
  static __device__ int first_row(int m) { return m * 64 + threadIdx.x / 32 * 16; }
  static __device__ int first_output() { return 0; }
  // What threads wrote becomes visible to wgmma.
  static __device__ void publish() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  }
  static __device__ void multiply(std::uint32_t x, int row, int, std::uint32_t w,
                                  float (&sum)[kTilesM][kTilesN][4]) {
    constexpr int kSteps = Sizes::kChunk / 16;
    const std::uint32_t lane = threadIdx.x % 32;
    const std::uint32_t first = row + first_row(0) + (lane & 15);
    std::uint32_t a[kSteps][kTilesM][4];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const std::uint32_t at = x + Tile::offset(first, 2 * k + (lane >> 4));
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) load_matrices(a[k][m], at + m * 64 * Tile::kRowBytes);
    }
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const std::uint64_t address = (w + k * 2 * Sizes::kBlockN * 16) & 0x3FFFFu;
      const std::uint64_t piece = Sizes::kBlockN, block = 8;  // distances in 16 bytes
      const std::uint64_t weights = address >> 4 | piece << 16 | block << 32;
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) multiply_group(a[k][m], weights, sum[m]);
    }
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
  }
  static __device__ void finish() {
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
  }
};

constexpr int kSharedBytes = 112 * 1024;  // of two blocks on a multiprocessor

template <class Kernel>
cudaError_t prepare(Kernel kernel) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
}

}  // namespace

bool half_group_takes(std::int32_t channels, std::int32_t outputs) {
  if (channels % kGroupChannels != 0 || outputs % kGroupOutputs != 0) return false;
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
}

cudaError_t launch_group_conv(const HalfConv& conv, cudaStream_t stream) {
  if (conv.taps == 7) return launch_conv_shape<GroupShape<7>>(conv, stream);
  if (conv.taps == 2) return launch_conv_shape<GroupShape<2>>(conv, stream);
  if (conv.taps == 1) return launch_conv_shape<GroupShape<1>>(conv, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_group_unit(const HalfUnit& unit, cudaStream_t stream) {
  return launch_unit_shape<GroupShape<7>>(unit, stream);
}

cudaError_t prepare_half_group() {
  if (!half_group_takes(kGroupChannels, kGroupOutputs)) return cudaSuccess;
  cudaError_t result = prepare(half_conv_kernel<GroupShape<7>>);
  if (result == cudaSuccess) result = prepare(half_conv_kernel<GroupShape<2>>);
  if (result == cudaSuccess) result = prepare(half_conv_kernel<GroupShape<1>>);
  if (result == cudaSuccess) result = prepare(half_unit_kernel<GroupShape<7>>);
  return result;
}

}  // namespace higgs_rt
