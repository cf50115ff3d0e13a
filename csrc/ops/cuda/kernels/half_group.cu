// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include "ops/cuda/kernels/half_conv_kernel.cuh"
#include "ops/cuda/kernels/half_group.h"
#include "ops/cuda/kernels/half_group_unit.cuh"
#include "ops/cuda/kernels/half_wgmma.cuh"

namespace higgs_rt {

namespace {

constexpr int group_stages(int taps) { return taps == 7 ? 4 : 3; }
constexpr int group_ahead(int taps) { return taps == 7 ? 3 : taps == 2 ? 4 : 2; }  // measured

// Two groups of four warps, each with 64 times. The weights come by the copy engine. The times of
// seven taps come from shared memory too, a tap as another first row; those of few taps from
// registers, as a fence for every chunk of them would wait for all copies under way.
template <int kTapsOf>
struct GroupShape : HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, group_stages(kTapsOf),
                              group_ahead(kTapsOf)> {
  using Sizes = HalfSizes<kTapsOf, kGroupChannels, kGroupOutputs, group_stages(kTapsOf),
                          group_ahead(kTapsOf)>;
  using Tile = HalfTile<kGroupChannels>;
  static constexpr int kThreads = 256;
  static constexpr int kTilesM = 1, kTilesN = 16, kParts = Sizes::kChunk / 16;
  static constexpr bool kAsync = true, kBulk = true;
  static constexpr int kPending = kTapsOf == 7 ? 1 : 0;

  static constexpr __host__ __device__ int tile_bytes(int rows) { return rows * Tile::kRowBytes; }
  static __device__ std::uint32_t offset(int row, int piece, int) {
    return Tile::offset(row, piece);
  }
  static __device__ int first_row(int) { return static_cast<int>(threadIdx.x) / 32 * 16; }
  static __device__ int first_output() { return 0; }
  static __device__ void multiply(std::uint32_t x, int row, int, std::uint32_t w,
                                  float (&sum)[kTilesM][kTilesN][4]) {
    if constexpr (kPending > 0) {
      const int group = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 128, 0);
      multiply_rows(x + (row + group * 64) * Tile::kRowBytes, w, sum[0]);
    } else {
      multiply_loaded(x, row, w, sum[0]);
    }
  }
  static __device__ void finish(float (&sum)[kTilesM][kTilesN][4]) {
    if constexpr (kPending > 0) {
      wait_products<kPending>();
    } else {
      group_wait<0>(sum[0]);
    }
  }

  static __device__ void multiply_rows(std::uint32_t x, std::uint32_t w, float (&sum)[kTilesN][4]) {
    const std::uint32_t at = factor_address(x), weights = factor_address(w);
    group_begin(sum);
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      multiply_group(tile_factors<kGroupChannels>(at + k * 2),
                     group_factors_at(weights + k * 2 * kGroupOutputs, kGroupOutputs), sum);
    }
    end_products();
  }

  static __device__ void multiply_loaded(std::uint32_t x, int row, std::uint32_t w,
                                         float (&sum)[kTilesN][4]) {
    const std::uint32_t lane = threadIdx.x % 32;
    const std::uint32_t first = row + first_row(0) + (lane & 15);
    std::uint32_t a[kParts][4];
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      load_matrices(a[k], x + Tile::offset(first, 2 * k + (lane >> 4)));
    }
    group_begin(sum);
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      multiply_group(a[k], group_factors(w + k * 2 * kGroupOutputs * 16, kGroupOutputs), sum);
    }
    end_products();
  }
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
