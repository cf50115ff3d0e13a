#include "ops/cuda/linear_paths.h"

#include <algorithm>

#include "core/check.h"
#include "core/cuda/cuda_check.h"
#include "ops/cuda/kernels/joined.h"
#include "ops/cuda/kernels/persist.h"

namespace higgs_rt {

namespace {

bool aligned(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
}

bool fits_int(const TensorView& weight) {
  return weight.dim(0) < (std::int64_t{1} << 30) && weight.dim(1) < (std::int64_t{1} << 30);
}

}  // namespace

LinearPaths::LinearPaths(CudaDevice& device) : device_(device), cublas_(device) {
  check_cuda(read_stream_device(device.ordinal(), stream_), "linear", "cudaDeviceGetAttribute");
  device.activate();
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.ordinal()),
             "linear", "cudaDeviceGetAttribute");
  if (major >= 9 && stream_.code < 90) {
    fail(ErrorCode::kUnsupported, "device", "expected kernels for compute capability ", major,
         ".x on ", device.name(), ", got those for ", stream_.code / 10, '.', stream_.code % 10,
         " alone (build with -DCMAKE_CUDA_ARCHITECTURES=90 or \"80;90\")");
  }
  bool fits = false;
  check_cuda(persist_fits(stream_, fits), "decode_step", "cudaOccupancyMaxActiveClusters");
  wide_runs_ = higgs_rt::wide_runs();
  if (fits && wide_runs_) one_kernel_rows_ = kOneKernelRows;
  prompt_runs_ = prompt_linear_runs();
}

bool LinearPaths::takes_wide(std::int64_t rows, const TensorView& weight, std::int64_t dim) const {
  return wide_runs_ && weight.dtype == DType::kBF16 && aligned(weight) && fits_int(weight) &&
         rows <= kWideMaxRows &&
         wide_takes(static_cast<int>(rows), static_cast<int>(weight.dim(0)),
                    static_cast<int>(weight.dim(1)), static_cast<int>(dim));
}

LinearPath LinearPaths::choose(std::int64_t rows, const TensorView& weight, std::int64_t dim,
                               RowKind kind) const {
  if (weight.dtype != DType::kBF16 || !aligned(weight) || !fits_int(weight)) {
    return LinearPath::kPlain;
  }
  const std::int64_t outputs = weight.dim(0), inputs = weight.dim(1);
  const auto width = static_cast<int>(inputs);
  if (kind == RowKind::kDecode && rows <= kStreamMaxRows && inputs % 64 == 0 &&
      stream_fits(stream_, width, static_cast<int>(dim))) {
    return LinearPath::kStream;
  }
  if (kind == RowKind::kDecode && takes_wide(rows, weight, dim)) return LinearPath::kWide;
  return inputs % 8 == 0 && outputs % 8 == 0 ? LinearPath::kCublasLt : LinearPath::kPlain;
}

LinearPath LinearPaths::choose(std::int64_t rows, const TensorView& weight, std::int64_t dim,
                               RowKind kind, PromptEnd end) const {
  const LinearPath path = choose(rows, weight, dim, kind);
  if (path != LinearPath::kCublasLt || !prompt_runs_) return path;
  if (kind == RowKind::kDecode && rows <= kWideMaxRows) return path;
  const bool takes = prompt_linear_takes(end, static_cast<int>(std::min(rows, kJoinedRows)),
                                         static_cast<int>(weight.dim(0)),
                                         static_cast<int>(weight.dim(1)), static_cast<int>(dim));
  return takes ? LinearPath::kPrompt : path;
}

cudaError_t LinearPaths::wide(const TensorView& x, const TensorView& weight,
                              const WideOutput& output, const WideFactors& factors) {
  const StreamWeight factor{static_cast<const __nv_bfloat16*>(weight.data),
                            static_cast<int>(weight.dim(0)), static_cast<int>(weight.dim(1))};
  const PlainRows rows{static_cast<const __nv_bfloat16*>(x.data), static_cast<int>(x.dim(0))};
  return launch_wide(factor, rows, factors, output, device_.stream());
}

TensorView LinearPaths::joined(std::int64_t rows, std::int64_t width) {
  const std::int64_t size = rows * width;
  if (joined_.empty() || joined_.back().view().size() < size) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(device_.stream(), &status), "linear", "cudaStreamIsCapturing");
    check_internal(status == cudaStreamCaptureStatusNone, "linear",
                   "working memory: expected a run of this step before it is recorded, got none");
    joined_.emplace_back(device_, DType::kBF16, Shape{kJoinedRows * width});
  }
  return {joined_.back().view().data, DType::kBF16, {rows, width}};
}

cudaError_t LinearPaths::joined_qkv(const TensorView& y, const TensorView& weight, QkvOutput out) {
  for (std::int64_t begin = 0; begin < y.dim(0); begin += kJoinedRows) {
    const std::int64_t count = std::min(y.dim(0) - begin, kJoinedRows);
    const TensorView product = joined(count, weight.dim(0));
    cublas_.product(y.slice(begin, count), weight, product, false);
    const cudaError_t result = launch_joined_qkv(static_cast<const __nv_bfloat16*>(product.data),
                                                 out, static_cast<int>(count), device_.stream());
    if (result != cudaSuccess) return result;
    out.q += count * out.heads * out.dim, out.position += count, out.slot += count;
  }
  return cudaSuccess;
}

cudaError_t LinearPaths::joined_swiglu(const TensorView& y, const TensorView& weight,
                                       const TensorView& out) {
  for (std::int64_t begin = 0; begin < y.dim(0); begin += kJoinedRows) {
    const std::int64_t count = std::min(y.dim(0) - begin, kJoinedRows);
    const TensorView product = joined(count, weight.dim(0));
    cublas_.product(y.slice(begin, count), weight, product, false);
    const cudaError_t result = launch_joined_swiglu(
        static_cast<const __nv_bfloat16*>(product.data),
        static_cast<__nv_bfloat16*>(out.slice(begin, count).data), static_cast<int>(count),
        static_cast<int>(out.dim(1)), device_.stream());
    if (result != cudaSuccess) return result;
  }
  return cudaSuccess;
}

bool follows(const TensorView& view, const TensorView& next) {
  return static_cast<const char*>(view.data) + view.bytes() == next.data &&
         view.dtype == next.dtype;
}

TensorView join_rows(const TensorView& first, std::int64_t outputs) {
  return {first.data, first.dtype, {outputs, first.dim(1)}};
}

}  // namespace higgs_rt
