// Assembly of the CUDA operations and what they share.
#include "ops/cuda/cuda_ops.h"

#include "core/check.h"
#include "ops/cuda/linear_paths.h"

namespace higgs_rt {

CudaOps::CudaOps(CudaDevice& device)
    : device_(device), linear_(std::make_unique<LinearPaths>(device)) {}
CudaOps::~CudaOps() = default;

void expect_cuda(const char* op, const char* name, const TensorView& view, DType dtype,
                 const Shape& shape) {
  if (view.dtype == dtype && view.shape == shape) return;  // the text is made for failures only
  fail(ErrorCode::kInternal, op, name, ": expected ", name_of(dtype), ' ', to_string(shape),
       ", got ", name_of(view.dtype), ' ', to_string(view.shape));
}

std::unique_ptr<Ops> make_cuda_ops(Device& device) {
  return std::make_unique<CudaOps>(as_cuda(device));
}

}  // namespace higgs_rt
