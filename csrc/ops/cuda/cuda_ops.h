// The CUDA implementation of Ops: one file per operation beside this one, each a check of shapes
// and a call of a launcher in kernels/.
#pragma once

#include <memory>
#include <vector>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"
#include "ops/ops.h"

namespace higgs_rt {

class AttentionScratch;
class LinearPaths;
class PersistScratch;
class WideScratch;

class CudaOps final : public Ops {
 public:
  explicit CudaOps(CudaDevice& device);
  ~CudaOps() override;

  Device& device() override { return device_; }
  void embed_text(const TensorView& table, const TensorView& table_rows, const TensorView& ids,
                  const TensorView& out) override;
  void gather_columns(const TensorView& index, const TensorView& given, const TensorView& last,
                      const TensorView& out) override;
  void embed_columns(const TensorView& table, const TensorView& columns,
                     const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override;
  void linear(const TensorView& x, const TensorView& weight, const TensorView& out, bool accumulate,
              RowKind kind) override;
  void add_lora(const TensorView& x, std::span<const Lora> weights, const LoraRows& rows,
                std::span<const TensorView> outs) override;
  void rope(const TensorView& x, const TensorView& positions, const TensorView& table) override;
  void store_kv(const TensorView& k, const TensorView& v, const TensorView& slots,
                const TensorView& k_cache, const TensorView& v_cache) override;
  void plan_attention(const TensorView& q, const TensorView& k_cache,
                      const AttentionBatch& batch) override;
  void attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                 const AttentionBatch& batch, const TensorView& out) override;
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) override;
  void embed_audio(const ColumnInput& input, const TensorView& out) override;
  void attention_input(const TensorView& x, const AttentionInput& input, const TensorView& q,
                       const TensorView& k_cache, const TensorView& v_cache) override;
  void ffn_input(const TensorView& x, const FfnInput& input, const TensorView& out) override;
  void head(const TensorView& x, const HeadInput& input, const TensorView& out) override;
  std::int64_t decode_step_rows() const override;
  bool decode_step(const TensorView& x, const DecodeStep& step, const TensorView& out) override;
  void sum_code_tables(const TensorView& tables, const TensorView& bias, const TensorView& codes,
                       const TensorView& out) override;
  void conv1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
              const Conv1d& conv, const TensorView* residual, const TensorView& out) override;
  void conv_transpose1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        const Conv1d& conv, const TensorView& out) override;
  void snake(const TensorView& x, const TensorView& alpha, const TensorView& out) override;
  void crop(const TensorView& x, std::int64_t begin, const TensorView& out) override;

 private:
  // decode_step() of more rows than one kernel takes.
  bool wide_step(const TensorView& x, const DecodeStep& step, const TensorView& out);

  CudaDevice& device_;
  std::shared_ptr<AttentionScratch> attention_;  // made by the first bf16 attention (attention.cpp)
  // Of decode_step(); the last is in use, earlier ones are in graphs.
  std::vector<std::shared_ptr<PersistScratch>> persist_;
  std::vector<std::shared_ptr<WideScratch>> wide_;
  std::unique_ptr<LinearPaths> linear_;  // how matrix products run, and their working memory
};

// Throws kInternal `[op] name: expected dtype shape, got …`.
void expect_cuda(const char* op, const char* name, const TensorView& view, DType dtype,
                 const Shape& shape);

}  // namespace higgs_rt
