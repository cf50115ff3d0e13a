// The engine over this project's own operations.
#pragma once

#include <memory>
#include <vector>

#include "engine/factory.h"
#include "model/decoder.h"

namespace higgs_rt {

class NativeEngine final : public Engine {
 public:
  // config's limits must be filled in and within the model's. Allocates the KV cache.
  NativeEngine(const EngineConfig& config, const ModelConfig& model, ModelWeights weights,
               std::unique_ptr<Ops> ops);

  const EngineSpec& spec() const override { return spec_; }
  Device& device() override { return ops_->device(); }
  void forward(const StepBatch& batch, StepOutput& output) override;
  // Keys and values of all layers.
  std::int64_t kv_bytes() const;

 private:
  DecoderBatch upload(const StepBatch& batch, const StepOutput& output);

  EngineSpec spec_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<Tensor> kv_memory_;
  KvCache cache_;
  std::vector<std::int32_t> staging_;  // one step's index arrays, one after another
  Tensor indices_;                     // the same on the device
  Tensor table_rows_;                  // [max_rows, H] fp32
};

// Backend "native" on the device's kind; `config.num_blocks` may be 0.
LoadedEngine load_native_engine(const EngineConfig& config, Device& device, ThreadPool& pool);

}  // namespace higgs_rt
