// Which way a matrix product takes on the GPU: the one table.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/tensor.h"
#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/kernels/prompt_linear.h"
#include "ops/cuda/kernels/wide_linear.h"
#include "ops/ops.h"

namespace higgs_rt {

enum class LinearPath {
  kStream,  // own kernels, bound by reading the weights; norms and what follows inside
  kWide,    // own kernels with wgmma; what follows inside, in a whole step norms too
  kPrompt,  // own kernels with the bits of kCublasLt; what follows inside
  kCublasLt,
  kPlain,  // any shape, any element type
};

// What the matrix products keep on a GPU.
class LinearPaths {
 public:
  explicit LinearPaths(CudaDevice& device);

  // For `rows` rows and a weight [O, I]; `dim`: head size when the product ends in the KV cache,
  // else 0. The addresses of the other tensors must be multiples of 16 and activations bf16 for
  // anything but kPlain.
  //
  // bf16, chosen by measurement on an H200 (docs/performance.md):
  //   decode rows  1 to 16    kStream    I a multiple of 64. A whole step of the released shape
  //                                      without adapters instead: 1 to 8 rows one kernel
  //                                      (one_kernel_rows()), 9 to 16 kWide
  //   decode rows 17 to 128   kWide      I and O multiples of 8, head size one of 128; on
  //                                      compute capability 9.0 only. A whole step without
  //                                      adapters: wide_step.cpp
  //   other decode rows,      kCublasLt  I and O multiples of 8; on compute capability 9.0
  //   prompt rows                        kPrompt, with the same bits, where prompt_linear_takes()
  //                                      says so: gate and up to 2,112 rows, the others of fewer
  // fp32 and other shapes: kPlain.
  LinearPath choose(std::int64_t rows, const TensorView& weight, std::int64_t dim,
                    RowKind kind) const;
  // The same, where a product that kPrompt may take ends as `end` says.
  LinearPath choose(std::int64_t rows, const TensorView& weight, std::int64_t dim, RowKind kind,
                    PromptEnd end) const;

  // Most rows of a decode step that is one kernel (decode_step.cpp says of which shapes): 8, or 0
  // where its blocks would not all run at a time. Other forms of a step round differently.
  std::int64_t one_kernel_rows() const { return one_kernel_rows_; }

  const StreamDevice& stream() const { return stream_; }
  // Whether this GPU has kWide, and whether it takes a product (choose() gives it some of these).
  bool wide_runs() const { return wide_runs_; }
  bool takes_wide(std::int64_t rows, const TensorView& weight, std::int64_t dim) const;
  // The product of rows x [R, I] by kWide.
  cudaError_t wide(const TensorView& x, const TensorView& weight, const WideOutput& output,
                   const WideFactors& factors = {});
  CublasLt& cublas() { return cublas_; }

  // Products by cuBLASLt with a weight of several matrices, and what follows them; y [R, I], out
  // [R, F].
  cudaError_t joined_qkv(const TensorView& y, const TensorView& weight, QkvOutput out);
  cudaError_t joined_swiglu(const TensorView& y, const TensorView& weight, const TensorView& out);

 private:
  static constexpr std::int64_t kJoinedRows = 4608;  // more rows go in several passes
  // [rows, width] bf16, working memory until the next call. It grows outside of captures only:
  // throws kInternal in one.
  TensorView joined(std::int64_t rows, std::int64_t width);

  CudaDevice& device_;
  StreamDevice stream_;
  std::int64_t one_kernel_rows_ = 0;
  bool wide_runs_, prompt_runs_;
  CublasLt cublas_;
  std::vector<Tensor> joined_;  // the last is in use, earlier ones are in graphs
};

// Whether `next` begins where `view` ends.
bool follows(const TensorView& view, const TensorView& next);
// Views that lie one after another as one matrix [sum of the outputs, inputs].
TensorView join_rows(const TensorView& first, std::int64_t outputs);

}  // namespace higgs_rt
