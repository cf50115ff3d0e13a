#include "ops/cuda/checks.h"
#include "ops/cuda/kernels/plain_linear.h"
#include "ops/cuda/linear_paths.h"

namespace higgs_rt {

namespace {

using bf16 = __nv_bfloat16;

StreamWeight factor_of(const TensorView& weight) {
  return {static_cast<const bf16*>(weight.data), static_cast<int>(weight.dim(0)),
          static_cast<int>(weight.dim(1))};
}
PlainRows rows_of(const TensorView& x) {
  return {static_cast<const bf16*>(x.data), static_cast<int>(x.dim(0))};
}

cudaError_t stream_linear(const StreamDevice& device, const TensorView& x, const TensorView& weight,
                          const TensorView& out, bool accumulate, cudaStream_t stream) {
  const StreamWeight factor = factor_of(weight);
  const PlainRows rows = rows_of(x);
  if (accumulate) return launch_stream_add(device, factor, rows, out.as<float>(), stream);
  if (out.dtype == DType::kF32) {
    return launch_stream_store(device, factor, rows, out.as<float>(), stream);
  }
  return launch_stream_store(device, factor, rows, static_cast<bf16*>(out.data), stream);
}

WideOutput wide_output(const TensorView& out, bool accumulate) {
  WideOutput output{};
  output.end = accumulate                 ? WideEnd::kAdd
               : out.dtype == DType::kF32 ? WideEnd::kStoreF32
                                          : WideEnd::kStoreBf16;
  output.out = out.data;
  return output;
}

}  // namespace

void CudaOps::linear(const TensorView& x, const TensorView& weight, const TensorView& out,
                     bool accumulate, RowKind kind) {
  constexpr const char* kOp = "linear";
  expect_cuda_rank(kOp, "x", x, 2);
  expect_cuda_rank(kOp, "weight", weight, 2);
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = weight.dim(0);
  expect_cuda_real(kOp, "x", x, {rows, inputs});
  expect_cuda_real(kOp, "weight", weight, {outputs, inputs});
  expect_cuda_real(kOp, "out", out, {rows, outputs});
  check_internal(!accumulate || out.dtype == DType::kF32, kOp, "out: expected f32 to add to, got ",
                 name_of(out.dtype));
  if (rows == 0 || outputs == 0) return;
  device_.activate();
  LinearPath path = LinearPath::kPlain;
  if (x.dtype == DType::kBF16) {
    path = accumulate ? linear_->choose(rows, weight, 0, kind, PromptEnd::kAdd)
                      : linear_->choose(rows, weight, 0, kind);
  }
  if (path == LinearPath::kCublasLt) {
    linear_->cublas().product(x, weight, out, accumulate);
  } else if (path == LinearPath::kWide) {
    check_cuda(linear_->wide(x, weight, wide_output(out, accumulate)), kOp, "the launch");
  } else if (path == LinearPath::kPrompt) {
    check_cuda(launch_prompt_add(factor_of(weight), rows_of(x), out.as<float>(), device_.stream()),
               kOp, "the launch");
  } else if (path == LinearPath::kPlain) {
    check_cuda(launch_plain_linear({x.data, x.dtype, weight.data, weight.dtype, out.data, out.dtype,
                                    accumulate, rows, outputs, inputs},
                                   device_.stream()),
               kOp, "the launch");
  } else {
    check_cuda(stream_linear(linear_->stream(), x, weight, out, accumulate, device_.stream()), kOp,
               "the launch");
  }
}

}  // namespace higgs_rt
