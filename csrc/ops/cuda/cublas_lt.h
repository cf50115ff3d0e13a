// Matrix products by cuBLASLt: bf16 factors, fp32 sums. The algorithm is chosen once and kept. The
// workspace is allocated once, so calls may be captured in a CUDA graph (after one call of the same
// shape outside of it, which loads the kernel).
//
// Decode rows: for each number of rows, of the algorithms that cuBLASLt proposes the one that
// cublas_ranks.inc says was fastest for as many rows or the next more, or else the first. A row's
// bits are those of its number of rows.
//
// Prompt rows: algorithms that add the inputs of a row in one order, whatever the number of rows.
// cublas_ranks.inc names those that were measured to agree bit for bit, by the number of rows; for
// other products and versions one algorithm takes every number of rows.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "core/cuda/cuda_device.h"
#include "core/tensor.h"
#include "ops/ops.h"

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
               bool accumulate, RowKind kind);

  // Rows, outputs, inputs, type of the output, whether the product is added to it.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, DType, bool>;
  // From now on such a product of decode rows takes the proposed algorithm of this rank, from 0.
  // False: there is none, and nothing changes. Not for a product that a graph in use was recorded
  // with.
  bool force_rank(int rank, const Key& key);

 private:
  struct Plan;
  Plan& decode_plan(const Key& key);
  Plan& prompt_plan(const Key& key);

  CudaDevice& device_;
  cublasLtHandle_t handle_ = nullptr;
  std::shared_ptr<void> workspace_;
  std::map<Key, std::unique_ptr<Plan>> decode_plans_;
  std::map<Key, std::unique_ptr<Plan>> prompt_plans_;  // by the most rows that take the algorithm
};

}  // namespace higgs_rt
