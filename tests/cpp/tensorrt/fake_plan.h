// A plan whose contexts run its network on the CPU, and which checks how it is used.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "engine/tensorrt/manifest.h"
#include "engine/tensorrt/plan.h"
#include "tensorrt/fake_device.h"

namespace higgs_rt::testing {

// What was asked of the plan, kept beyond its life.
struct PlanUse {
  std::int64_t shapes_set = 0;
  std::int64_t addresses_set = 0;
  std::int64_t enqueues = 0;  // not while recording
  std::int64_t recordings = 0;
  std::vector<std::int32_t> context_profiles;
  // [profile, B, S] of every run, replayed or not.
  std::vector<std::vector<std::int64_t>> runs;
};

struct FakePlanOptions {
  std::string package = "tensorrt";
  std::string version = "10.16.1";
  std::string target = "sm90";
  bool capturable = true;
  std::function<void(std::int32_t profile)> before_enqueue;  // may throw
  // Changes what the plan says of itself.
  std::function<void(std::vector<PlanTensor>&)> edit_tensors;
  std::function<void(std::vector<PlanProfile>&)> edit_profiles;
};

// Its plans are files with kPlanText; bindings and profiles come from the manifest beside them,
// weights, unless they are inputs, from the checkpoint `model_dir`. A context throws kInternal when
// a shape is outside its profile, a tensor has no address or a misaligned one, an output does not
// alias its input, or a recording is replayed after its context was changed.
class FakePlanRuntime final : public PlanRuntime {
 public:
  static constexpr const char* kPlanText = "a plan of the test double";

  FakePlanRuntime(FakeDevice& device, ThreadPool& pool, std::string model_dir,
                  FakePlanOptions options = {}, std::shared_ptr<PlanUse> use = nullptr);
  std::string package() const override { return options_.package; }
  std::string version() const override { return options_.version; }
  std::string target() const override { return options_.target; }
  std::unique_ptr<Plan> load(const std::string& path) override;

 private:
  FakeDevice& device_;
  ThreadPool& pool_;
  std::string model_dir_;
  FakePlanOptions options_;
  std::shared_ptr<PlanUse> use_;
};

}  // namespace higgs_rt::testing
