// Convolutions as matrix products on the tensor cores: times x (channels, taps) by (channels, taps)
// x outputs.
#pragma once

#include "ops/cuda/kernels/half_outputs.cuh"

namespace higgs_rt {

template <class S>
__global__ void __launch_bounds__(S::kThreads, 2) half_conv_kernel(HalfConv conv) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const int chunks = conv.channels / S::kChunk, steps = chunks * S::kTaps;
  const int tiles_n = conv.outputs / S::kBlockN;
  const int rows = S::tile_rows(conv.dilation);
  HalfPlace place;
  place.total = *conv.batch.count * conv.rows;
  place.first = first_time(conv.batch, place.total, S::kBlockM);
  if (place.first >= place.total) return grid_wait();
  place.phase = blockIdx.y / tiles_n;
  place.output = blockIdx.y % tiles_n * S::kBlockN;
  place.shift = S::kTaps == 2 ? (place.phase + conv.padding) / conv.phases - 1 : -conv.padding;
  place.x = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  place.weights = place.x + S::buffers(chunks) * S::tile_bytes(rows);

  init_stages<S>(place);
  float sum[S::kTilesM][S::kTilesN][4] = {};
#pragma unroll
  for (int step = 0; step < S::kStages - 1 - S::kPending; ++step) {
    if (step < steps) load_step_weights<S>(conv, place, step);
  }
  grid_wait();
  grid_launch_next();
#pragma unroll
  for (int step = 0; step < S::kAhead; ++step) {
    if (step < steps) load_step_times<S>(conv, place, step);
    copy_async_commit();
  }
  if constexpr (S::kTaps == 1) {
    if (conv.residual != nullptr) take_residual<S>(conv, place, sum);
  }
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<S::kAhead - 1>();
    if constexpr (S::kPending > 0) {
      if (step % S::kTaps == 0) fence_async_proxy();
    }
    __syncthreads();  // what step - 1 - kPending read may be overwritten now
    wait_weights<S>(place, step);
    const auto load_next = [&] {
      const int time = step + S::kAhead, weight = step + S::kStages - 1 - S::kPending;
      if (time < steps) load_step_times<S>(conv, place, time);
      if (weight < steps) load_step_weights<S>(conv, place, weight);
      copy_async_commit();
    };
    if constexpr (!S::kAsync) load_next();
    const int chunk = step / S::kTaps, tap = step % S::kTaps;
    S::multiply(place.x + chunk % S::kBuffers * S::tile_bytes(rows), tap * conv.dilation, rows,
                place.weights + step % S::kStages * S::tile_bytes(S::kBlockN), sum);
    if constexpr (S::kAsync) load_next();
    S::finish(sum);
  }
  if constexpr (S::kPending > 0) group_wait<0>(sum[0]);
  write_tile<S>(conv, place, sum);
}

template <class S>
cudaError_t launch_conv_shape(const HalfConv& conv, cudaStream_t stream) {
  const std::int64_t times = static_cast<std::int64_t>(conv.batch.max_items) * conv.rows;
  const dim3 grid(static_cast<unsigned>((times + S::kBlockM - 1) / S::kBlockM),
                  static_cast<unsigned>(conv.phases * (conv.outputs / S::kBlockN)));
  return launch_half(conv.batch, half_conv_kernel<S>, grid, S::kThreads, half_shared_bytes<S>(conv),
                     stream, conv);
}

}  // namespace higgs_rt
