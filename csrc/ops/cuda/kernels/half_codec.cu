// The two ends of the batched codec decoder: code tables, and the convolution to one channel.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/half_codec.h"

namespace higgs_rt {

namespace {

constexpr int kThreads = 128;

__global__ void half_tables_kernel(HalfTables args) {
  const int row = blockIdx.x;
  const int item = row / args.rows;
  if (item >= *args.batch.count) return;
  const int frame = args.begin + row % args.rows;
  const int2 frames = args.batch.valid[item];
  const bool valid = frame >= frames.x && frame < frames.y;
  const std::int32_t* codes = args.codes + static_cast<std::size_t>(row) * args.codebooks;
  for (int d = threadIdx.x; d < args.channels; d += kThreads) {
    float sum = 0;
    if (valid && d < args.size) {
      sum = args.bias[d];
      for (int k = 0; k < args.codebooks; ++k) {
        const std::size_t code = static_cast<std::size_t>(k) * args.vocab + codes[k];
        sum += args.tables[code * args.size + d];
      }
    }
    args.out[static_cast<std::size_t>(row) * args.channels + d] = __float2half(sum);
  }
}

// One thread, one sample: one chain of multiply-adds, tap by tap.
__global__ void half_last_kernel(HalfLast args) {
  extern __shared__ float weight[];
  grid_wait();
  const int item = blockIdx.y;
  if (item >= *args.batch.count) return;
  for (int i = threadIdx.x; i < kLastTaps * args.channels; i += kThreads)
    weight[i] = args.weight[i];
  __syncthreads();
  const int t = blockIdx.x * kThreads + threadIdx.x;
  if (t >= args.samples) return;
  const std::size_t row = static_cast<std::size_t>(item) * args.in_rows + args.in_begin + t;
  const __half* x = args.x + row * args.channels;
  float sum = args.bias[0];
  for (int i = 0; i < kLastTaps * args.channels; i += 8) {  // rows follow each other in memory
    const uint4 piece = *reinterpret_cast<const uint4*>(x + i);
    const auto* pairs = reinterpret_cast<const __half2*>(&piece);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = __half22float2(pairs[j]);
      sum = fmaf(pair.x, weight[i + 2 * j], sum);
      sum = fmaf(pair.y, weight[i + 2 * j + 1], sum);
    }
  }
  args.pcm[static_cast<std::size_t>(item) * args.samples + t] = sum;
}

}  // namespace

cudaError_t launch_half_tables(const HalfTables& tables, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(tables.batch.max_items * tables.rows);
  half_tables_kernel<<<blocks, kThreads, 0, stream>>>(tables);
  return cudaGetLastError();
}

cudaError_t launch_half_last(const HalfLast& last, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((last.samples + kThreads - 1) / kThreads),
                  static_cast<unsigned>(last.batch.max_items));
  const std::size_t bytes = static_cast<std::size_t>(kLastTaps * last.channels) * sizeof(float);
  return launch(half_last_kernel, grid, kThreads, bytes, stream, last);
}

}  // namespace higgs_rt
