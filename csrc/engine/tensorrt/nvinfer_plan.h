// The plan interface over the vendor's API (TensorRT and TensorRT for RTX have the same one).
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/cuda/cuda_device.h"
#include "engine/tensorrt/plan.h"

namespace higgs_rt {

// Keeps the vendor's latest error, so that our own can quote it, and prints warnings. Any thread of
// the vendor's may call it.
class NvinferLog final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override;
  // What was logged as an error since the last call, " (…)"; "" when nothing was.
  std::string take_error();

 private:
  std::mutex mutex_;
  std::string error_;
};

class NvinferPlan final : public Plan {
 public:
  NvinferPlan(std::unique_ptr<nvinfer1::ICudaEngine> engine, CudaDevice& device, NvinferLog& log);
  const std::vector<PlanTensor>& tensors() const override { return tensors_; }
  std::int32_t num_profiles() const override { return engine_->getNbOptimizationProfiles(); }
  Shape profile_shape(const char* input, std::int32_t profile, ProfileBound bound) const override;
  std::int64_t scratch_bytes(std::int32_t profile) const override;
  std::unique_ptr<PlanContext> make_context(std::int32_t profile, void* scratch, std::int64_t bytes,
                                            bool fixed_shapes) override;

 private:
  std::unique_ptr<nvinfer1::IExecutionContext> make_raw_context(bool fixed_shapes);

  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  CudaDevice& device_;
  NvinferLog& log_;
  std::vector<PlanTensor> tensors_;
};

}  // namespace higgs_rt
