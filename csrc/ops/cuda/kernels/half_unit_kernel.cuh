// A residual unit in one kernel: the seven-tap convolution, the snake, and the product over
// channels, for widths whose outputs fit one block. What is between the two stays in shared memory.
#pragma once

#include "ops/cuda/kernels/half_outputs.cuh"

namespace higgs_rt {

// fp16(snake(sum + bias)) to a tile for each chunk of channels, [kBlockM, kChunk], from shared on,
// and the residual in place of the sums, to be followed by order_residual().
template <class S>
__device__ void store_between(const HalfUnit& unit, const HalfPlace& place, unsigned char* shared,
                              float (&sum)[S::kTilesM][S::kTilesN][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int g = 0; g < S::kTilesN / 2; ++g) {
    const int channel = S::first_output() + g * 16 + lane % 4 * 4;
    const float4 bias = load4(unit.wide_bias + channel);
    const SnakeOfFour snake(unit.between, channel);
    unsigned char* tile = shared + channel / S::kChunk * S::tile_bytes(S::kBlockM);
#pragma unroll
    for (int m = 0; m < S::kTilesM; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = S::first_row(m) + h * 8 + lane / 4;
        const std::uint32_t at =
            S::offset(row, channel % S::kChunk / 8, S::kBlockM) + channel % 8 * 2;
        *reinterpret_cast<uint2*>(tile + at) = activate(snake, add4(four_sums(sum[m], g, h), bias));
      }
    }
    if (g % 2 == 1) ask_residual<S>(unit.conv, place, g / 2, sum);
  }
}

// Steps of the first convolution, then one per chunk of channels of the second.
template <class S>
__device__ void load_unit_step(const HalfUnit& unit, const HalfPlace& place, int step) {
  const int chunks = S::kBlockN / S::kChunk, steps = chunks * S::kTaps;
  if (step < steps) {
    load_step_times<S>(unit.conv, place, step);
    load_step_weights<S>(unit.conv, place, step);
  } else if (step < steps + chunks) {
    load_weights<S>(place, unit.point_weight + (step - steps) * S::kBlockN * S::kChunk, step);
  }
  copy_async_commit();
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlockN == 32 ? 4 : 2)
    half_unit_kernel(HalfUnit unit) {
  extern __shared__ __align__(1024) unsigned char shared[];
  constexpr int kChunks = S::kBlockN / S::kChunk, kSteps = kChunks * S::kTaps;
  const HalfConv& conv = unit.conv;
  const int rows = S::tile_rows(conv.dilation);
  HalfPlace place = {};
  place.total = *conv.batch.count * conv.rows;
  place.first = first_time(conv.batch, place.total, S::kBlockM);
  if (place.first >= place.total) return grid_wait();
  place.shift = -conv.padding;
  place.x = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  place.weights = place.x + kChunks * S::tile_bytes(rows);

  float sum[S::kTilesM][S::kTilesN][4] = {};
#pragma unroll
  for (int step = 0; step < S::kStages - 1; ++step) load_step_weights<S>(conv, place, step);
  grid_wait();
  grid_launch_next();
#pragma unroll
  for (int step = 0; step < S::kStages - 1; ++step) {
    load_step_times<S>(conv, place, step);
    copy_async_commit();
  }
  for (int step = 0; step < kSteps + kChunks; ++step) {
    copy_async_wait<S::kStages - 2>();
    if (step == kSteps) {
      __syncthreads();  // all have read the times
      store_between<S>(unit, place, shared, sum);
    }
    __syncthreads();  // what step - 1 read may be overwritten now
    if (step == kSteps) order_residual<S>(sum);
    load_unit_step<S>(unit, place, step + S::kStages - 1);
    const bool wide = step < kSteps;
    const int tile_rows = wide ? rows : S::kBlockM;
    const int tile = wide ? step / S::kTaps : step - kSteps;
    S::multiply(place.x + tile * S::tile_bytes(tile_rows),
                wide ? step % S::kTaps * conv.dilation : 0, tile_rows,
                place.weights + step % S::kStages * S::tile_bytes(S::kBlockN), sum);
  }
  write_tile<S>(conv, place, sum);
}

template <class S>
cudaError_t launch_unit_shape(const HalfUnit& unit, cudaStream_t stream) {
  const std::int64_t times = static_cast<std::int64_t>(unit.conv.batch.max_items) * unit.conv.rows;
  const dim3 grid(static_cast<unsigned>((times + S::kBlockM - 1) / S::kBlockM));
  const std::size_t bytes = half_shared_bytes<S>(unit.conv);
  return launch_half(unit.conv.batch, half_unit_kernel<S>, grid, S::kThreads, bytes, stream, unit);
}

}  // namespace higgs_rt
