#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/codec_plain.h"

namespace higgs_rt {

namespace {

constexpr int kThreads = 128;
constexpr int kOutputs = 8;  // of one thread

unsigned blocks_of(std::int64_t items, std::int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// One thread: one time, kOutputs outputs. Outputs beyond the last repeat it and are not written.
__global__ void conv_kernel(PlainConv conv) {
  grid_wait();
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kOutputs;
  if (t >= conv.out_times) return;
  float sum[kOutputs];
  const float* weight[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const std::int64_t o = min(first + i, conv.outputs - 1);
    sum[i] = conv.bias[o];
    weight[i] = conv.weight + o * conv.channels * conv.taps;
  }
  for (std::int64_t c = 0; c < conv.channels; ++c) {
    for (int k = 0; k < conv.taps; ++k) {
      const std::int64_t at = t + static_cast<std::int64_t>(k) * conv.dilation - conv.padding;
      const float value = at >= 0 && at < conv.times ? conv.x[c * conv.times + at] : 0.0F;
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) {
        sum[i] = fmaf(weight[i][c * conv.taps + k], value, sum[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    if (first + i >= conv.outputs) return;
    const std::int64_t index = (first + i) * conv.out_times + t;
    conv.out[index] = conv.residual != nullptr ? sum[i] + conv.residual[index] : sum[i];
  }
}

// One thread: one time, kOutputs outputs. The taps of a time are those with its phase.
__global__ void conv_transpose_kernel(PlainConv conv) {
  grid_wait();
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kOutputs;
  if (t >= conv.out_times) return;
  float sum[kOutputs];
  std::int64_t offset[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const std::int64_t o = min(first + i, conv.outputs - 1);
    sum[i] = conv.bias[o];
    offset[i] = o * conv.taps;
  }
  const std::int64_t newest = (t + conv.padding) / conv.stride;
  const int phase = static_cast<int>((t + conv.padding) % conv.stride);
  for (std::int64_t c = 0; c < conv.channels; ++c) {
    const float* weight = conv.weight + c * conv.outputs * conv.taps;
    for (int k = phase; k < conv.taps; k += conv.stride) {
      const std::int64_t at = newest - k / conv.stride;
      const float value = at >= 0 && at < conv.times ? conv.x[c * conv.times + at] : 0.0F;
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) sum[i] = fmaf(weight[offset[i] + k], value, sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    if (first + i < conv.outputs) conv.out[(first + i) * conv.out_times + t] = sum[i];
  }
}

__global__ void sum_code_tables_kernel(PlainTables args) {
  grid_wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.size * args.times) return;
  const std::int64_t t = i / args.size, d = i % args.size;  // neighbours read neighbours
  float sum = args.bias[d];
  for (std::int64_t k = 0; k < args.codebooks; ++k) {
    const std::int64_t code = args.codes[k * args.times + t];
    const std::int64_t row = max(std::int64_t{0}, min(code, args.vocab - 1));
    sum += args.tables[(k * args.vocab + row) * args.size + d];
  }
  args.out[d * args.times + t] = sum;
}

__global__ void snake_kernel(const float* x, const float* alpha, float* out, std::int64_t channels,
                             std::int64_t times) {
  grid_wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= channels * times) return;
  const float a = alpha[i / times], value = x[i];
  const float s = sinf(a * value);
  out[i] = fmaf(s * s, 1.0F / (a + 1e-9F), value);
}

}  // namespace

cudaError_t launch_plain_conv(const PlainConv& conv, cudaStream_t stream) {
  const dim3 grid(blocks_of(conv.out_times, kThreads), blocks_of(conv.outputs, kOutputs));
  return launch(conv_kernel, grid, kThreads, 0, stream, conv);
}

cudaError_t launch_plain_conv_transpose(const PlainConv& conv, cudaStream_t stream) {
  const dim3 grid(blocks_of(conv.out_times, kThreads), blocks_of(conv.outputs, kOutputs));
  return launch(conv_transpose_kernel, grid, kThreads, 0, stream, conv);
}

cudaError_t launch_sum_code_tables(const PlainTables& tables, cudaStream_t stream) {
  const dim3 grid(blocks_of(tables.size * tables.times, kThreads));
  return launch(sum_code_tables_kernel, grid, kThreads, 0, stream, tables);
}

cudaError_t launch_plain_snake(const float* x, const float* alpha, float* out,
                               std::int64_t channels, std::int64_t times, cudaStream_t stream) {
  const dim3 grid(blocks_of(channels * times, kThreads));
  return launch(snake_kernel, grid, kThreads, 0, stream, x, alpha, out, channels, times);
}

}  // namespace higgs_rt
