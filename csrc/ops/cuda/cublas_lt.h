// Matrix products by cuBLASLt: bf16 factors, fp32 sums. A row has the same bits for every number of
// rows: only algorithms are taken whose blocks walk over all inputs in one order, and those give
// the same bits whatever their tiles (measured: docs/performance.md; tests/cpp/ops has the test).
//
// The number of rows is rounded up to one of some bounds, and the algorithm is chosen once for
// each: the one that cublas_ranks.inc says was fastest, which may be one that cuBLASLt proposes for
// another number of rows, or else the first that it proposes. The workspace is allocated once, so
// calls may be captured in a CUDA graph (after one call of the same shape outside of it, which
// loads the kernel).
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
  // What cuBLASLt proposes for a number of rows, best first.
  struct Proposal {
    std::int64_t rows;
    int rank;  // from 0
  };
  // From now on such a product takes this algorithm. False: there is none, it has other bits, or it
  // cannot do the key's rows, and nothing changes. Not for a product that a graph in use was
  // recorded with.
  bool force(const Proposal& proposal, const Key& key);

 private:
  struct Plan;
  Plan& plan_for(const Key& key);

  CudaDevice& device_;
  cublasLtHandle_t handle_ = nullptr;
  std::shared_ptr<void> workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace higgs_rt
