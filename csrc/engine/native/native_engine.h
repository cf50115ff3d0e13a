// The engine over this project's own operations.
#pragma once

#include <memory>
#include <vector>

#include "engine/factory.h"
#include "engine/native/decode_graphs.h"
#include "engine/native/memory_plan.h"
#include "engine/native/step_staging.h"
#include "model/decoder.h"

namespace higgs_rt {

class NativeEngine final : public Engine {
 public:
  // config's limits must be filled in and within the model's. Allocates the KV cache.
  NativeEngine(const EngineConfig& config, const ModelConfig& model, ModelWeights weights,
               AdapterSet adapters, std::unique_ptr<Ops> ops);

  const EngineSpec& spec() const override { return spec_; }
  Device& device() override { return ops_->device(); }
  void forward(const StepBatch& batch, StepOutput& output) override;
  void attach(StepTail tail) override;
  void rest() override { ops_->set_busy(false); }
  DeviceSeconds device_seconds() override;
  // Keys and values of all layers.
  std::int64_t kv_bytes() const;
  const MemoryUse& memory() const { return memory_; }  // without the cache; 0 on the CPU

 private:
  void warm_prompts();
  TensorView add_adapters(const StepBatch& batch);
  void make_cache(const EngineConfig& config, const ModelConfig& model, DType dtype);
  const float* run_graph(const StepBatch& batch);
  const float* run_eagerly(const StepBatch& batch, const StepOutput& output);
  const float* run(const DecoderBatch& batch, const TensorView& sampler_rows);

  EngineSpec spec_;
  const std::int32_t max_blocks_;  // of a sequence
  MemoryUse memory_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<Tensor> kv_memory_;
  KvCache cache_;  // one block more than the spec's: the scratch block of DecodeGraphs
  std::unique_ptr<StepStaging> staging_;
  std::unique_ptr<DeviceTimer> eager_timer_;
  std::unique_ptr<DeviceTimer> graph_timer_;
  std::uint64_t graph_steps_ = 0;  // launched
  std::uint64_t told_steps_ = 0;   // of them, that device_seconds() has told of
  double graph_seconds_ = 0;       // of the last one that was timed
  StepTail tail_;
  std::unique_ptr<DecodeGraphs> graphs_;  // null: none
};

// Backend "native" on the device's kind; `config.num_blocks` may be 0.
LoadedEngine load_native_engine(const EngineConfig& config, Device& device, ThreadPool& pool);

}  // namespace higgs_rt
