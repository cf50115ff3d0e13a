// A TensorRT plan behind the Engine interface.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/factory.h"
#include "engine/native/step_staging.h"
#include "engine/tensorrt/manifest.h"
#include "engine/tensorrt/plan.h"
#include "engine/tensorrt/step_calls.h"
#include "ops/ops.h"

namespace higgs_rt {

// What the engine did so far.
struct PlanCounts {
  std::int64_t prefill_calls = 0;
  std::int64_t decode_calls = 0;
  std::int64_t graph_launches = 0;  // decode calls that were replayed
  std::int64_t recordings = 0;
};

// One linear KV cache per slot, so a block is a slot and a sequence has one block. Columns of
// running sequences share one call per step, over slots [0, bucket); every other sequence of the
// step is a call of its own. Shapes and addresses of decode contexts, one per bucket, are set once;
// a prefill call sets its shapes and the place of its slot. With a tail attached, a bucket's call
// and the tail behind it are one graph, unless a prompt of the same step also wants logits.
class TensorRtEngine final : public Engine {
 public:
  // `runtime` made the plan, which passed check_plan(); limits are within the manifest's. Allocates
  // the caches, all contexts and their working memory, and runs every decode bucket once. `ops`
  // puts logits in order. Throws kResourceExhausted that says what did not fit.
  TensorRtEngine(const EngineSpec& spec, PlanManifest manifest,
                 std::unique_ptr<PlanRuntime> runtime, std::unique_ptr<Plan> plan,
                 std::vector<Tensor> weights, std::unique_ptr<Ops> ops);

  const EngineSpec& spec() const override { return spec_; }
  Device& device() override { return ops_->device(); }
  void forward(const StepBatch& batch, StepOutput& output) override;
  // Records every bucket. A plan that cannot be recorded runs without graphs and says so once.
  void attach(StepTail tail) override;
  DeviceSeconds device_seconds() override { return {.all = timer_->collect()}; }
  std::int64_t kv_bytes() const { return manifest_.slot_bytes * spec_.kv.num_blocks; }
  const PlanCounts& counts() const { return counts_; }

 private:
  struct Layer {
    Tensor keys, values;                       // [slots, Hk, M, Dh]
    std::array<std::string, 2> past, present;  // binding names of keys and values
  };
  // A decode context whose shapes and addresses stay, and its graph.
  struct Bucket {
    std::int32_t slots = 0;
    std::unique_ptr<PlanContext> context;
    std::unique_ptr<DeviceGraph> graph;  // destroyed before its context
    const void* last_columns = nullptr;  // that the context has
  };
  // Inputs of a decode call that change from step to step; the last two are not the plan's.
  struct DecodeInputs {
    std::array<std::pair<const char*, void*>, 5> bindings;
    const std::int32_t* sampler_rows = nullptr;  // [slots], -1: padding
    void* columns = nullptr;
  };

  // Once (tensorrt_setup.cpp).
  void allocate_cache();
  void allocate_buffers();
  void make_contexts();
  void prepare(Bucket& bucket);
  void shape_cache(PlanContext& context, std::int32_t slots);
  void bind_weights(PlanContext& context);
  template <class Make>
  auto make_or_explain(const std::string& what, const Make& make);
  Tensor allocate(DType dtype, const Shape& shape, const std::string& what);
  std::unique_ptr<StepStaging> make_staging(std::int64_t words, const char* what);

  void bind_cache(PlanContext& context, std::int32_t first_slot);
  DecodeInputs stage_decode(const PlanCall& call, const std::vector<std::int32_t>& sampler_rows);
  void record(Bucket& bucket);
  void bind_last_columns(Bucket& bucket, const std::int32_t* last_columns);
  void run_decode(const PlanCall& call, const StepBatch& batch, const StepOutput& output,
                  bool with_tail);
  void run_prefill(const PlanCall& call, const StepOutput& output, std::int64_t logit_row);
  void run_tail(const StepBatch& batch, const float* logits);
  void note_positions(const StepBatch& batch);
  void* last_columns_or_unused(const std::int32_t* last_columns) const;
  std::int64_t whole_logit_rows(std::int64_t rows) const;
  const float* ordered_logits();

  EngineSpec spec_;
  PlanManifest manifest_;
  std::unique_ptr<PlanRuntime> runtime_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<DeviceTimer> timer_;
  std::vector<Tensor> weights_;  // in the order of the manifest's weight_inputs
  std::vector<Layer> layers_;
  std::vector<std::int32_t> valid_;  // [slots]: positions written for the slot's latest owner
  StepCalls calls_;
  std::unique_ptr<StepStaging> decode_staging_, prefill_staging_, order_staging_;
  Tensor identity_;                  // [slots] i32: 0, 1, 2, …
  Tensor unused_;                    // zeros in place of inputs that nothing reads
  Tensor logit_arena_;               // [rows, K V] fp32: of the decode call, then of prefills
  std::int64_t logit_row_step_ = 1;  // rows of the arena with an aligned address
  std::int64_t decode_logit_rows_ = 0;
  std::int64_t unused_logit_row_ = 0;  // takes logits that nobody asked for
  Tensor logits_;                      // [max_rows, K V] fp32 in the order of the step
  Tensor scratch_;                     // working memory of all contexts: one runs at a time
  std::vector<std::int32_t> sources_;  // arena row of each wanted logit row
  std::unique_ptr<PlanContext> prefill_;
  std::int32_t bound_slot_ = -1;  // of prefill_
  std::vector<Bucket> buckets_;
  StepTail tail_;
  bool graphs_ = true;  // recording works as far as is known
  PlanCounts counts_;
};

// Opens config.plan_dir with `runtime`. What load_tensorrt_engine() does once it has a runtime.
LoadedEngine load_plan(const EngineConfig& config, Device& device, ThreadPool& pool,
                       std::unique_ptr<PlanRuntime> runtime);

// Throws kUnsupported when this build has no TensorRT.
LoadedEngine load_tensorrt_engine(const EngineConfig& config, Device& device, ThreadPool& pool);

}  // namespace higgs_rt
