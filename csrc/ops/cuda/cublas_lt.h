// Matrix products by cuBLASLt: bf16 factors, fp32 sums. A row has the same bits for every number of
// rows: only algorithms are taken whose blocks walk over all inputs in one order, and those give
// the same bits whatever their tiles (measured: docs/performance.md; tests/cpp/ops has the test).
//
// The number of rows is rounded up to one of few bounds, and the algorithm is chosen once for each:
// of those that cuBLASLt proposes, the one that cublas_ranks.inc says was fastest, or else the
// first. The workspace is allocated once, so calls may be captured in a CUDA graph (after one call
// of the same shape outside of it, which loads the kernel).
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
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

  // Numbers of rows that algorithms are chosen for, ascending; more rows take the last one's.
  static std::span<const std::int64_t> bounds();
  // Bound of the rows, outputs, inputs, type of the output, whether the product is added to it.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, DType, bool>;
  // From now on such a product takes the proposed algorithm of this rank, from 0. False: there is
  // none, or it has other bits, and nothing changes. Not for a product that a graph in use was
  // recorded with.
  bool force_rank(int rank, const Key& key);

 private:
  struct Plan;
  Plan& plan_for(const Key& key);

  CudaDevice& device_;
  cublasLtHandle_t handle_ = nullptr;
  std::shared_ptr<void> workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace higgs_rt
