// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/half_conv_kernel.cuh"
#include "ops/cuda/kernels/half_group.h"
#include "ops/cuda/kernels/half_group_unit.cuh"
#include "ops/cuda/kernels/half_wgmma.cuh"

namespace higgs_rt {

namespace {

// The times come from registers, because a tap may begin at any row; the weights from shared
// memory, and there from the copy engine. Two groups of four warps, each with 64 times.
template <int kTapsOf>
struct GroupShape : HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, kTapsOf == 7 ? 4 : 3,
                              kTapsOf == 2 ? 4 : 3> {
  using Sizes =
      HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, kTapsOf == 7 ? 4 : 3, kTapsOf == 2 ? 4 : 3>;
  using Tile = HalfTile<kGroupChannels>;
  static constexpr int kThreads = 256;
  static constexpr int kTilesM = 1, kTilesN = 16;
  static constexpr bool kAsync = true, kBulk = true;

  static constexpr __host__ __device__ int tile_bytes(int rows) { return rows * Tile::kRowBytes; }
  static __device__ std::uint32_t offset(int row, int piece, int) {
    return Tile::offset(row, piece);
  }
  static __device__ int first_row(int) { return static_cast<int>(threadIdx.x) / 32 * 16; }
  static __device__ int first_output() { return 0; }
  static __device__ void multiply(std::uint32_t x, int row, int, std::uint32_t w,
                                  float (&sum)[kTilesM][kTilesN][4]) {
    constexpr int kSteps = Sizes::kChunk / 16;
    const std::uint32_t lane = threadIdx.x % 32;
    const std::uint32_t first = row + first_row(0) + (lane & 15);
    std::uint32_t a[kSteps][4];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      load_matrices(a[k], x + Tile::offset(first, 2 * k + (lane >> 4)));
    }
    group_begin();
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const std::uint32_t at = w + k * 2 * Sizes::kBlockN * 16;
      multiply_group(a[k], group_factors(at, Sizes::kBlockN), sum[0]);
    }
    group_commit();
  }
  static __device__ void finish() { group_wait<0>(); }
};

constexpr int kSharedBytes = 113 * 1024;  // of two blocks on a multiprocessor

template <class Kernel>
cudaError_t prepare(Kernel kernel, int bytes = kSharedBytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
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

bool half_group_takes_unit(std::int32_t channels) {
  return (channels == 128 || channels == 256) && half_group_takes(channels, channels);
}

cudaError_t launch_group_conv(const HalfConv& conv, cudaStream_t stream) {
  if (conv.taps == 7) return launch_conv_shape<GroupShape<7>>(conv, stream);
  if (conv.taps == 2) return launch_conv_shape<GroupShape<2>>(conv, stream);
  if (conv.taps == 1) return launch_conv_shape<GroupShape<1>>(conv, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_group_unit(const HalfUnit& unit, cudaStream_t stream) {
  if (unit.conv.channels == 128) return launch_group_unit_shape<GroupUnit<128>>(unit, stream);
  if (unit.conv.channels == 256) return launch_group_unit_shape<GroupUnit<256>>(unit, stream);
  return cudaErrorInvalidValue;
}

cudaError_t prepare_half_group() {
  if (!half_group_takes(kGroupChannels, kGroupOutputs)) return cudaSuccess;
  cudaError_t result = prepare(half_conv_kernel<GroupShape<7>>);
  if (result == cudaSuccess) result = prepare(half_conv_kernel<GroupShape<2>>);
  if (result == cudaSuccess) result = prepare(half_conv_kernel<GroupShape<1>>);
  if (result == cudaSuccess) result = prepare(group_unit_kernel<GroupUnit<128>>);
  if (result == cudaSuccess) result = prepare(group_unit_kernel<GroupUnit<256>>, 2 * kSharedBytes);
  return result;
}

}  // namespace higgs_rt
