// A residual unit in one kernel, as half_unit_kernel.cuh, by two groups of four warps each with 64
// times and all outputs. Both factors of the products are in shared memory: a tap is another first
// row of the times. The products of a step go on while the next one's weights are waited for.
#pragma once

#include "ops/cuda/kernels/half_unit_kernel.cuh"

namespace higgs_rt {

template <int kChannels>
struct GroupUnit : HalfSizes<7, 64, kChannels, 4> {
  using Sizes = HalfSizes<7, 64, kChannels, 4>;
  using Tile = HalfTile<64>;
  static constexpr int kThreads = 256, kBlocks = kChannels == 128 ? 2 : 1;  // on a multiprocessor
  static constexpr int kChunks = kChannels / Sizes::kChunk, kBuffers = kChunks;  // all at once
  static constexpr int kWide = kChunks * Sizes::kTaps;
  static constexpr int kSteps = kWide + kChunks;
  static constexpr int kTilesM = 1, kTilesN = kChannels / 8;
  static constexpr bool kBulk = true;

  static constexpr __host__ __device__ int tile_bytes(int rows) { return rows * Tile::kRowBytes; }
  static __device__ std::uint32_t offset(int row, int piece, int) {
    return Tile::offset(row, piece);
  }
  static __device__ int first_row(int) { return static_cast<int>(threadIdx.x) / 32 * 16; }
  static __device__ int first_output() { return 0; }
};

template <class S>
struct GroupUnitWork {
  const HalfUnit& unit;
  const HalfPlace& place;
  float sum[1][S::kTilesN][4] = {};

  // The products of a step; x: the group's first row of its tile.
  __device__ void multiply(std::uint32_t x, int step) {
    wait_weights<S>(place, step);
    const std::uint32_t at = factor_address(x);
    const std::uint32_t w =
        factor_address(place.weights + step % S::kStages * S::tile_bytes(S::kBlockN));
    group_begin(sum[0]);
#pragma unroll
    for (int k = 0; k < S::kChunk / 16; ++k) {
      multiply_group(tile_factors<S::kChunk>(at + k * 2),
                     group_factors_at(w + k * 2 * S::kBlockN, S::kBlockN), sum[0]);
    }
    end_products();
  }

  __device__ void load_weights(int step) const {
    if (step < S::kWide) {
      load_step_weights<S>(unit.conv, place, step);
    } else if (step < S::kSteps) {
      const __half* from = unit.point_weight + (step - S::kWide) * S::kBlockN * S::kChunk;
      higgs_rt::load_weights<S>(place, from, step);
    }
  }

  // The residual into the L2 cache while the first convolution goes on.
  __device__ void expect_residual() const {
    constexpr int kLine = 32, kLines = S::kBlockM * S::kBlockN / kLine;
    const int exist = (place.total - place.first) * S::kBlockN;
    const float* from = unit.conv.residual + static_cast<std::size_t>(place.first) * S::kBlockN;
    for (int at = threadIdx.x * kLine; at < min(kLines * kLine, exist); at += S::kThreads * kLine) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
    }
  }

  __device__ void convolve(int group) {
    const int rows = S::tile_rows(unit.conv.dilation);
    const std::uint32_t first = place.x + group * 64 * S::Tile::kRowBytes;
    for (int step = 0; step < S::kWide; ++step) {
      const int chunk = step / S::kTaps, tap = step % S::kTaps;
      if (tap == 0 && chunk < 2) {  // from the second chunk on all have come
        chunk == 0 ? copy_async_wait<S::kChunks - 1>() : copy_async_wait<0>();
        fence_async_proxy();
        __syncthreads();
      }
      const int row = tap * unit.conv.dilation;
      multiply(first + chunk * S::tile_bytes(rows) + row * S::Tile::kRowBytes, step);
      wait_products<1>();
      __syncthreads();  // the products of step - 1 have ended
      if (step > 0) load_weights(step - 1 + S::kStages);
    }
    group_wait<0>(sum[0]);
    __syncthreads();  // all have read the times
    load_weights(S::kWide - 1 + S::kStages);
  }

  __device__ void multiply_point(int group) {
    const std::uint32_t first = place.x + group * 64 * S::Tile::kRowBytes;
#pragma unroll
    for (int chunk = 0; chunk < S::kChunks; ++chunk) {
      multiply(first + chunk * S::tile_bytes(S::kBlockM), S::kWide + chunk);
    }
    group_wait<0>(sum[0]);
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) group_unit_kernel(HalfUnit unit) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const HalfConv& conv = unit.conv;
  const int rows = S::tile_rows(conv.dilation);
  HalfPlace place = {};
  place.total = *conv.batch.count * conv.rows;
  place.first = first_time(conv.batch, place.total, S::kBlockM);
  if (place.first >= place.total) return grid_wait();
  place.shift = -conv.padding;
  place.x = static_cast<std::uint32_t>(__cvta_generic_to_shared(memory));
  place.weights = place.x + S::kChunks * S::tile_bytes(rows);
  const int group = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 128, 0);

  GroupUnitWork<S> work = {unit, place};
  init_stages<S>(place);
#pragma unroll
  for (int step = 0; step < S::kStages; ++step) work.load_weights(step);
  grid_wait();
  grid_launch_next();
#pragma unroll
  for (int chunk = 0; chunk < S::kChunks; ++chunk) {
    load_times<S>(conv, place, chunk);
    copy_async_commit();
  }
  work.expect_residual();
  work.convolve(group);
  store_between<S>(unit, place, memory, work.sum);
  fence_async_proxy();
  __syncthreads();
  order_residual<S>(work.sum);
  work.multiply_point(group);
  write_tile<S>(conv, place, work.sum);
}

template <class S>
cudaError_t launch_group_unit_shape(const HalfUnit& unit, cudaStream_t stream) {
  const std::int64_t times = static_cast<std::int64_t>(unit.conv.batch.max_items) * unit.conv.rows;
  const dim3 grid(static_cast<unsigned>((times + S::kBlockM - 1) / S::kBlockM));
  const int bytes = S::kChunks * S::tile_bytes(S::tile_rows(unit.conv.dilation)) +
                    S::kStages * (S::tile_bytes(S::kBlockN) + 8);
  return launch_half(unit.conv.batch, group_unit_kernel<S>, grid, S::kThreads,
                     static_cast<std::size_t>(bytes), stream, unit);
}

}  // namespace higgs_rt
