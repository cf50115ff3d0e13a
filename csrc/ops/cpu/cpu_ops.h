// The CPU implementation of Ops: one file per operation beside this one.
#pragma once

#include <functional>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace higgs_rt {

class CpuOps final : public Ops {
 public:
  CpuOps(Device& device, ThreadPool& pool, const Kernels& kernels)
      : device_(device), pool_(pool), kernels_(kernels) {}

  ~CpuOps() override { set_busy(false); }
  CpuOps(const CpuOps&) = delete;
  CpuOps& operator=(const CpuOps&) = delete;

  Device& device() override { return device_; }
  void set_busy(bool busy) override {
    if (busy == busy_) return;
    busy_ = busy;
    busy ? pool_.enter() : pool_.leave();
  }
  void embed_text(const TensorView& table, const TensorView& table_rows, const TensorView& ids,
                  const TensorView& out) override;
  void gather_columns(const TensorView& index, const TensorView& given, const TensorView& last,
                      const TensorView& out) override;
  void embed_columns(const TensorView& table, const TensorView& columns,
                     const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override;
  Tensor pack(const TensorView& weight) override;
  void linear(const TensorView& x, const TensorView& weight, const TensorView& out, bool accumulate,
              RowKind kind) override;
  void add_lora(const TensorView& x, std::span<const Lora> weights, const LoraRows& rows,
                std::span<const TensorView> outs) override;
  void rope(const TensorView& x, const TensorView& positions, const TensorView& table) override;
  void store_kv(const TensorView& k, const TensorView& v, const TensorView& slots,
                const TensorView& k_cache, const TensorView& v_cache) override;
  void expect_attention(const TensorView& k_cache, const TensorView& v_cache,
                        const AttentionBatch& batch) override;
  void attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                 const AttentionBatch& batch, const TensorView& out) override;
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void gather_rows(const TensorView& x, const TensorView& rows, const TensorView& out) override;
  void sum_code_tables(const TensorView& tables, const TensorView& bias, const TensorView& codes,
                       const TensorView& out) override;
  void conv1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
              const Conv1d& conv, const TensorView* residual, const TensorView& out) override;
  Tensor pack_transposed(const TensorView& weight, std::int64_t stride) override;
  void conv_transpose1d(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        const Conv1d& conv, const TensorView& out) override;
  void snake(const TensorView& x, const TensorView& alpha, const TensorView& out) override;
  void residual_unit(const TensorView& x, const ResidualUnit& unit, const TensorView& out) override;
  void crop(const TensorView& x, std::int64_t begin, const TensorView& out) override;

 private:
  void linear_packed(const LinearArgs& args, const TensorView& weight);
  void add_lora_run(const TensorView& x, const Lora& weight, std::int32_t adapter, float scale,
                    float* work, const TensorView& out) const;
  // A convolution whose kernel arguments differ only in the block of time and outputs; `left`
  // zeros stand before x[c, 0], and step 0 with tap offset 0 reads that far to the left of x. The
  // (virtual) outputs are shared out by `tile`.
  void run_conv(ConvArgs args, const TensorView& x, std::int64_t left, std::int64_t steps,
                std::int64_t outputs, std::int64_t tile,
                const std::function<void(const ConvArgs&)>& kernel);
  // parallel_for over items that take as long as `cost` multiply-adds each, with a grain below
  // which handing work to another thread costs more than it saves.
  template <class Body>
  void parallel(std::int64_t count, std::int64_t cost, const Body& body) {
    pool_.parallel_for(count, grain_for(cost), body, busy_);
  }
  static std::int64_t grain_for(std::int64_t cost);

  Device& device_;
  ThreadPool& pool_;
  const Kernels& kernels_;
  bool busy_ = false;
  std::vector<const char*> far_pieces_;  // keys and values of the next attention()
  FarMemory far_;
};

// Throws kInternal `[op] name: expected dtype shape, got …`.
void expect(const char* op, const char* name, const TensorView& view, DType dtype,
            const Shape& shape);
// The same for weights, which may be fp32 or bf16.
void expect_weight(const char* op, const char* name, const TensorView& view, const Shape& shape);
// Throws when `view` does not have `rank` axes.
void expect_rank(const char* op, const char* name, const TensorView& view, std::size_t rank);
// The bits of a bf16 tensor.
const std::uint16_t* bf16_bits(const TensorView& view);

}  // namespace higgs_rt
