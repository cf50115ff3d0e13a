// The codec's operations in fp32 (ops.h): the reference on the GPU for the half-precision path.
// Every sample is one chain of multiply-adds that starts at the bias, so its bits depend neither on
// its place nor on the length. All pointers are device memory, layouts as in ops.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace higgs_rt {

struct PlainConv {
  const float* x;         // [channels, times]
  const float* weight;    // [outputs, channels, taps]; transposed [channels, outputs, taps]
  const float* bias;      // [outputs]
  const float* residual;  // [outputs, out_times], or null
  float* out;             // [outputs, out_times]
  std::int64_t channels, times, outputs, out_times;
  std::int32_t taps, stride, dilation, padding;
};

cudaError_t launch_plain_conv(const PlainConv& conv, cudaStream_t stream);
cudaError_t launch_plain_conv_transpose(const PlainConv& conv, cudaStream_t stream);

struct PlainTables {
  const float* tables;        // [codebooks, vocab, size]
  const float* bias;          // [size]
  const std::int32_t* codes;  // [codebooks, times]; ids out of range are taken as the nearest one
  float* out;                 // [size, times]
  std::int64_t codebooks, vocab, size, times;
};
cudaError_t launch_sum_code_tables(const PlainTables& tables, cudaStream_t stream);

cudaError_t launch_plain_snake(const float* x, const float* alpha, float* out,
                               std::int64_t channels, std::int64_t times, cudaStream_t stream);

}  // namespace higgs_rt
