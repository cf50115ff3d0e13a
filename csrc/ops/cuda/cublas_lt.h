// Matrix products by cuBLASLt: bf16 factors, fp32 sums. The algorithm is asked for once per shape
// and kept; the workspace is allocated once, so calls may be captured in a CUDA graph (after one
// call of the same shape outside of it, which loads the kernel).
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "core/cuda/cuda_device.h"
#include "core/tensor.h"

namespace higgs_rt {

class CublasLt {
 public:
  explicit CublasLt(CudaDevice& device);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // out = or += x weight^T. x [R, I] bf16, weight [O, I] bf16, out [R, O] bf16 or fp32; addresses
  // multiples of 16, I and O multiples of 8.
  void product(const TensorView& x, const TensorView& weight, const TensorView& out,
               bool accumulate);

 private:
  struct Plan;
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, DType, bool>;
  const Plan& plan_for(const Key& key);

  CudaDevice& device_;
  cublasLtHandle_t handle_ = nullptr;
  std::shared_ptr<void> workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace higgs_rt
