// The few things that the engine needs of TensorRT. The vendor's API is behind this interface
// (nvinfer_plan.cpp), and so is the test double that runs a plan's network on the CPU.
//
// Work goes to the stream of the Device that the runtime was made for, in order. Names are those of
// the plan's input and output tensors. Everything throws Error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/tensor.h"

namespace higgs_rt {

constexpr std::int64_t kPlanAlignment = 256;  // bytes, of every address

struct PlanTensor {
  std::string name;
  DType dtype = DType::kF32;
  bool is_input = false;
  Shape shape;          // -1: dynamic
  std::string aliased;  // of an output: the input that it must share its memory with; "" for none
};

enum class ProfileBound { kMin, kMax };

// The network under one optimization profile. Shapes and addresses stay until they are set again.
class PlanContext {
 public:
  virtual ~PlanContext() = default;
  virtual void set_shape(const char* input, const Shape& shape) = 0;
  // `data`: device memory aligned to kPlanAlignment, also for a tensor without elements.
  virtual void set_address(const char* tensor, void* data) = 0;
  // May be recorded by Device::capture() once it has run with the present shapes; the context must
  // not be changed as long as the recording is used.
  virtual void enqueue() = 0;
  // Whether such a recording can be expected to work.
  virtual bool capturable() const = 0;
};

// A deserialized plan: its weights and what it wants. Must outlive its contexts.
class Plan {
 public:
  virtual ~Plan() = default;
  virtual const std::vector<PlanTensor>& tensors() const = 0;
  virtual std::int32_t num_profiles() const = 0;
  // Least and largest shape of an input under a profile.
  virtual Shape profile_shape(const char* input, std::int32_t profile,
                              ProfileBound bound) const = 0;
  // Most working memory that a context of the profile needs.
  virtual std::int64_t scratch_bytes(std::int32_t profile) const = 0;
  // `scratch`: device memory of at least scratch_bytes(profile). Contexts may share it as long as
  // only one of them runs at a time. `fixed_shapes`: the context will see one set of shapes only.
  virtual std::unique_ptr<PlanContext> make_context(std::int32_t profile, void* scratch,
                                                    std::int64_t bytes, bool fixed_shapes) = 0;
};

class PlanRuntime {
 public:
  virtual ~PlanRuntime() = default;
  virtual std::string package() const = 0;  // "tensorrt" or "tensorrt_rtx"
  virtual std::string version() const = 0;  // of the library that is loaded, e.g. "10.16.1"
  virtual std::string target() const = 0;   // compute capability of the device, e.g. "sm90"
  // Reads the file as a stream. Throws kNotFound, kInvalidArgument (not a whole plan, or made for
  // another version or device), kResourceExhausted. The runtime must outlive the plan.
  virtual std::unique_ptr<Plan> load(const std::string& path) = 0;
};

// Throws kUnsupported when the build has no TensorRT, or the library that is found is too old.
std::unique_ptr<PlanRuntime> make_plan_runtime(Device& device);

}  // namespace higgs_rt
