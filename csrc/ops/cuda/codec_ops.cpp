// The codec's operations on the GPU in fp32. The half-precision decoder (model/cuda) has kernels of
// its own; these are what it is compared with.
#include "core/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/kernels/codec_plain.h"

namespace higgs_rt {

namespace {

void expect_rank(const char* op, const char* name, const TensorView& view, std::size_t rank) {
  check_internal(view.shape.size() == rank, op, name, ": expected ", rank, " axes, got ",
                 to_string(view.shape));
}

void check_sizes(const char* op, const PlainConv& conv) {
  check_internal(conv.channels > 0 && conv.taps > 0 && conv.out_times > 0, op,
                 "expected at least one channel, tap and output sample, got ", conv.channels, ", ",
                 conv.taps, " and ", conv.out_times);
}

PlainConv plain(const TensorView& x, const TensorView& weight, const TensorView& bias,
                const Ops::Conv1d& conv, const TensorView* residual, const TensorView& out) {
  return {.x = x.as<float>(),
          .weight = weight.as<float>(),
          .bias = bias.as<float>(),
          .residual = residual == nullptr ? nullptr : residual->as<float>(),
          .out = out.as<float>(),
          .channels = x.dim(0),
          .times = x.dim(1),
          .outputs = 0,
          .out_times = 0,
          .taps = static_cast<std::int32_t>(weight.dim(2)),
          .stride = static_cast<std::int32_t>(conv.stride),
          .dilation = static_cast<std::int32_t>(conv.dilation),
          .padding = static_cast<std::int32_t>(conv.padding)};
}

}  // namespace

void CudaOps::sum_code_tables(const TensorView& tables, const TensorView& bias,
                              const TensorView& codes, const TensorView& out) {
  constexpr const char* kOp = "sum_code_tables";
  expect_rank(kOp, "tables", tables, 3);
  expect_rank(kOp, "codes", codes, 2);
  const std::int64_t codebooks = tables.dim(0), vocab = tables.dim(1), size = tables.dim(2);
  const std::int64_t times = codes.dim(1);
  expect_cuda(kOp, "tables", tables, DType::kF32, {codebooks, vocab, size});
  expect_cuda(kOp, "bias", bias, DType::kF32, {size});
  expect_cuda(kOp, "codes", codes, DType::kI32, {codebooks, times});
  expect_cuda(kOp, "out", out, DType::kF32, {size, times});
  if (size * times == 0) return;
  const PlainTables args = {tables.as<float>(),
                            bias.as<float>(),
                            codes.as<std::int32_t>(),
                            out.as<float>(),
                            codebooks,
                            vocab,
                            size,
                            times};
  device_.activate();
  check_cuda(launch_sum_code_tables(args, device_.stream()), kOp, "the kernel");
}

void CudaOps::conv1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                     const Conv1d& conv, const TensorView* residual, const TensorView& out) {
  constexpr const char* kOp = "conv1d";
  expect_rank(kOp, "x", x, 2);
  expect_rank(kOp, "weight", weight, 3);
  check_internal(
      conv.stride == 1 && conv.dilation >= 1 && conv.padding >= 0 && conv.output_padding == 0, kOp,
      "expected stride 1, dilation >= 1, padding >= 0 and no output_padding, got ", conv.stride,
      ", ", conv.dilation, ", ", conv.padding, ", ", conv.output_padding);
  PlainConv args = plain(x, weight, bias, conv, residual, out);
  args.outputs = weight.dim(0);
  args.out_times = args.times + 2 * conv.padding - conv.dilation * (args.taps - 1);
  check_sizes(kOp, args);
  expect_cuda(kOp, "x", x, DType::kF32, {args.channels, args.times});
  expect_cuda(kOp, "weight", weight, DType::kF32, {args.outputs, args.channels, args.taps});
  expect_cuda(kOp, "bias", bias, DType::kF32, {args.outputs});
  expect_cuda(kOp, "out", out, DType::kF32, {args.outputs, args.out_times});
  if (residual != nullptr) {
    expect_cuda(kOp, "residual", *residual, DType::kF32, {args.outputs, args.out_times});
  }
  device_.activate();
  check_cuda(launch_plain_conv(args, device_.stream()), kOp, "the kernel");
}

void CudaOps::conv_transpose1d(const TensorView& x, const TensorView& weight,
                               const TensorView& bias, const Conv1d& conv, const TensorView& out) {
  constexpr const char* kOp = "conv_transpose1d";
  expect_rank(kOp, "x", x, 2);
  expect_rank(kOp, "weight", weight, 3);
  check_internal(
      conv.stride >= 1 && conv.dilation == 1 && conv.padding >= 0 && conv.output_padding >= 0, kOp,
      "expected stride >= 1, dilation 1, padding and output_padding >= 0, got ", conv.stride, ", ",
      conv.dilation, ", ", conv.padding, ", ", conv.output_padding);
  PlainConv args = plain(x, weight, bias, conv, nullptr, out);
  args.outputs = weight.dim(1);
  args.out_times =
      (args.times - 1) * conv.stride - 2 * conv.padding + args.taps + conv.output_padding;
  check_sizes(kOp, args);
  expect_cuda(kOp, "x", x, DType::kF32, {args.channels, args.times});
  expect_cuda(kOp, "weight", weight, DType::kF32, {args.channels, args.outputs, args.taps});
  expect_cuda(kOp, "bias", bias, DType::kF32, {args.outputs});
  expect_cuda(kOp, "out", out, DType::kF32, {args.outputs, args.out_times});
  device_.activate();
  check_cuda(launch_plain_conv_transpose(args, device_.stream()), kOp, "the kernel");
}

void CudaOps::snake(const TensorView& x, const TensorView& alpha, const TensorView& out) {
  expect_rank("snake", "x", x, 2);
  const std::int64_t channels = x.dim(0), times = x.dim(1);
  expect_cuda("snake", "x", x, DType::kF32, {channels, times});
  expect_cuda("snake", "alpha", alpha, DType::kF32, {channels});
  expect_cuda("snake", "out", out, DType::kF32, {channels, times});
  if (channels * times == 0) return;
  device_.activate();
  check_cuda(launch_plain_snake(x.as<float>(), alpha.as<float>(), out.as<float>(), channels, times,
                                device_.stream()),
             "snake", "the kernel");
}

void CudaOps::crop(const TensorView& x, std::int64_t begin, const TensorView& out) {
  expect_rank("crop", "x", x, 2);
  expect_rank("crop", "out", out, 2);
  const std::int64_t channels = x.dim(0), times = x.dim(1), kept = out.dim(1);
  expect_cuda("crop", "x", x, DType::kF32, {channels, times});
  expect_cuda("crop", "out", out, DType::kF32, {channels, kept});
  check_internal(begin >= 0 && begin + kept <= times, "crop", "begin: expected 0..", times - kept,
                 ", got ", begin);
  if (channels * kept == 0) return;
  const auto pitch = [](std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(float);
  };
  device_.activate();
  check_cuda(cudaMemcpy2DAsync(out.data, pitch(kept), x.as<float>() + begin, pitch(times),
                               pitch(kept), static_cast<std::size_t>(channels),
                               cudaMemcpyDeviceToDevice, device_.stream()),
             "crop", "cudaMemcpy2DAsync");
}

}  // namespace higgs_rt
