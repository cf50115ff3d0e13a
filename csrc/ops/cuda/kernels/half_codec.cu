// The two ends of the batched codec decoder: code tables, and the convolution to one channel.
#include "ops/cuda/kernels/half_codec.h"
#include "ops/cuda/kernels/half_launch.cuh"

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

constexpr int kLanes = 4;  // threads of one sample of the last convolution

// A lane takes every fourth piece of eight channels, a chain of multiply-adds tap by tap; the
// lanes' sums are added last.
__global__ void half_last_kernel(HalfLast args) {
  extern __shared__ float weight[];
  grid_wait();
  const int item = blockIdx.y;
  if (item >= *args.batch.count) return;
  for (int i = threadIdx.x; i < kLastTaps * args.channels; i += kThreads) {
    weight[i] = args.weight[i];
  }
  __syncthreads();
  const int t = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int row = min(t, args.samples - 1) + args.in_begin;  // no thread leaves before the shuffle
  const __half* x = args.x + (static_cast<std::size_t>(item) * args.in_rows + row) * args.channels;
  float sum = 0;
  for (int i = lane * 8; i < kLastTaps * args.channels;
       i += kLanes * 8) {  // rows follow each other
    const uint4 piece = *reinterpret_cast<const uint4*>(x + i);
    const auto* pairs = reinterpret_cast<const __half2*>(&piece);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = __half22float2(pairs[j]);
      sum = fmaf(pair.x, weight[i + 2 * j], sum);
      sum = fmaf(pair.y, weight[i + 2 * j + 1], sum);
    }
  }
  sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
  sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
  if (lane == 0 && t < args.samples) {
    args.pcm[static_cast<std::size_t>(item) * args.samples + t] = sum + args.bias[0];
  }
}

}  // namespace

cudaError_t launch_half_tables(const HalfTables& tables, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(tables.batch.max_items * tables.rows);
  return launch_in_order(half_tables_kernel, blocks, kThreads, 0, stream, tables);
}

cudaError_t launch_half_last(const HalfLast& last, cudaStream_t stream) {
  constexpr int kSamples = kThreads / kLanes;  // of a block
  const dim3 grid(static_cast<unsigned>((last.samples + kSamples - 1) / kSamples),
                  static_cast<unsigned>(last.batch.max_items));
  const std::size_t bytes = static_cast<std::size_t>(kLastTaps * last.channels) * sizeof(float);
  return launch_half(last.batch, half_last_kernel, grid, kThreads, bytes, stream, last);
}

}  // namespace higgs_rt
