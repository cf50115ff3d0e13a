#include "engine/tensorrt/nvinfer_plan.h"

#include <utility>

#include "core/cuda/cuda_check.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "tensorrt";

DType element_type(const char* tensor, nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return DType::kF32;
    case nvinfer1::DataType::kBF16:
      return DType::kBF16;
    case nvinfer1::DataType::kHALF:
      return DType::kF16;
    case nvinfer1::DataType::kINT32:
      return DType::kI32;
    case nvinfer1::DataType::kBOOL:
    case nvinfer1::DataType::kUINT8:
      return DType::kU8;
    default:
      fail(ErrorCode::kUnsupported, kWhere, "expected tensor ", tensor,
           " of f32, bf16, f16, int32, bool or uint8, got element type ", static_cast<int>(type),
           " of nvinfer1::DataType");
  }
}

Shape to_shape(const nvinfer1::Dims& dims) {
  Shape shape;
  for (std::int32_t i = 0; i < dims.nbDims; ++i) shape.push_back(dims.d[i]);
  return shape;
}

nvinfer1::Dims to_dims(const Shape& shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
  return dims;
}

class NvinferContext final : public PlanContext {
 public:
  NvinferContext(std::unique_ptr<nvinfer1::IExecutionContext> context, CudaDevice& device,
                 NvinferLog& log)
      : context_(std::move(context)), device_(device), log_(log) {}

  void set_shape(const char* input, const Shape& shape) override {
    if (context_->setInputShape(input, to_dims(shape))) return;
    fail(ErrorCode::kInvalidArgument, kWhere, "expected a shape of ", input,
         " within the plan's profile, got ", to_string(shape), log_.take_error());
  }

  void set_address(const char* tensor, void* data) override {
    if (context_->setTensorAddress(tensor, data)) return;
    fail(ErrorCode::kInternal, kWhere, "expected to bind tensor ", tensor, ", got a refusal",
         log_.take_error());
  }

  void enqueue() override {
    if (context_->enqueueV3(device_.stream())) return;
    fail(ErrorCode::kInternal, kWhere, "expected a run of the plan to be enqueued, got a refusal",
         log_.take_error());
  }

  bool capturable() const override {
#ifdef TRT_MAJOR_RTX
    return context_->isStreamCapturable(device_.stream());
#else
    return true;  // TensorRT has no such question; the recording answers it
#endif
  }

 private:
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  CudaDevice& device_;
  NvinferLog& log_;
};

}  // namespace

NvinferPlan::NvinferPlan(std::unique_ptr<nvinfer1::ICudaEngine> engine, CudaDevice& device,
                         NvinferLog& log)
    : engine_(std::move(engine)), device_(device), log_(log) {
  for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    PlanTensor tensor;
    tensor.name = name;
    tensor.dtype = element_type(name, engine_->getTensorDataType(name));
    tensor.is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
    tensor.shape = to_shape(engine_->getTensorShape(name));
    if (!tensor.is_input) {
      const char* aliased = engine_->getAliasedInputTensor(name);
      if (aliased != nullptr) tensor.aliased = aliased;
    }
    tensors_.push_back(std::move(tensor));
  }
}

Shape NvinferPlan::profile_shape(const char* input, std::int32_t profile,
                                 ProfileBound bound) const {
  const auto which = bound == ProfileBound::kMin ? nvinfer1::OptProfileSelector::kMIN
                                                 : nvinfer1::OptProfileSelector::kMAX;
  const nvinfer1::Dims dims = engine_->getProfileShape(input, profile, which);
  if (dims.nbDims < 0) {
    fail(ErrorCode::kInvalidArgument, kWhere, "expected input ", input, " in profile ", profile,
         " of the plan, got none", log_.take_error());
  }
  return to_shape(dims);
}

std::int64_t NvinferPlan::scratch_bytes(std::int32_t profile) const {
  return engine_->getDeviceMemorySizeForProfileV2(profile);
}

std::unique_ptr<nvinfer1::IExecutionContext> NvinferPlan::make_raw_context(bool fixed_shapes) {
  constexpr auto kManaged = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;
#ifdef TRT_MAJOR_RTX
  // Kernels that are specialised in the background would change under a captured graph.
  using Strategy = nvinfer1::DynamicShapesKernelSpecializationStrategy;
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (config == nullptr) return nullptr;
  config->setExecutionContextAllocationStrategy(kManaged);
  config->setDynamicShapesKernelSpecializationStrategy(fixed_shapes ? Strategy::kEAGER
                                                                    : Strategy::kLAZY);
  return std::unique_ptr<nvinfer1::IExecutionContext>(
      engine_->createExecutionContext(config.get()));
#else
  static_cast<void>(fixed_shapes);
  return std::unique_ptr<nvinfer1::IExecutionContext>(engine_->createExecutionContext(kManaged));
#endif
}

std::unique_ptr<PlanContext> NvinferPlan::make_context(std::int32_t profile, void* scratch,
                                                       std::int64_t bytes, bool fixed_shapes) {
  device_.activate();
  auto context = make_raw_context(fixed_shapes);
  if (context == nullptr) {
    fail(ErrorCode::kResourceExhausted, kWhere,
         "expected to make an execution context for profile ", profile, ", got none",
         log_.take_error());
  }
  context->setDeviceMemoryV2(scratch, bytes);
  if (!context->setOptimizationProfileAsync(profile, device_.stream())) {
    fail(ErrorCode::kInternal, kWhere, "expected to choose profile ", profile, ", got a refusal",
         log_.take_error());
  }
  device_.synchronize();  // the profile must be in place before shapes are set
  return std::make_unique<NvinferContext>(std::move(context), device_, log_);
}

}  // namespace higgs_rt
