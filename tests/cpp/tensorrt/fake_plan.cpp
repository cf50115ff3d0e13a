#include "tensorrt/fake_plan.h"

#include <filesystem>
#include <set>
#include <utility>

#include "io/mapped_file.h"
#include "tensorrt/fake_network.h"

namespace higgs_rt::testing {

namespace {

constexpr const char* kWhere = "fake_plan";
constexpr std::int64_t kScratch = 1024;  // bytes

std::vector<PlanTensor> tensors_of(const PlanManifest& manifest) {
  std::vector<PlanTensor> tensors;
  for (const PlanBinding& binding : manifest.bindings) {
    PlanTensor tensor{binding.name, binding.dtype, binding.is_input, {}, ""};
    for (const auto& axis : binding.shape) tensor.shape.push_back(axis.extent);
    if (binding.name.starts_with("present_")) tensor.aliased = "past_" + binding.name.substr(8);
    tensors.push_back(std::move(tensor));
  }
  for (const PlanWeight& weight : manifest.weight_inputs) {
    tensors.push_back({weight.name, weight.dtype, true, weight.shape, ""});
  }
  return tensors;
}

class FakePlan;

class FakeContext final : public PlanContext {
 public:
  FakeContext(FakePlan& plan, std::int32_t profile) : plan_(plan), profile_(profile) {}
  void set_shape(const char* input, const Shape& shape) override;
  void set_address(const char* tensor, void* data) override;
  void enqueue() override;
  bool capturable() const override;

 private:
  Bound bind() const;
  void run();
  void check_alias(const PlanTensor& tensor) const;

  FakePlan& plan_;
  const std::int32_t profile_;
  std::map<std::string, Shape> shapes_;
  std::map<std::string, void*> addresses_;
  std::int64_t changes_ = 0;
  std::int64_t recorded_changes_ = -1;
  bool has_run_ = false;  // with the present shapes
};

class FakePlan final : public Plan {
 public:
  FakePlan(PlanManifest manifest, const std::string& model_dir, FakeDevice& the_device,
           ThreadPool& pool, const FakePlanOptions& options, std::shared_ptr<PlanUse> the_use)
      : device(the_device),
        use(std::move(the_use)),
        can_capture(options.capturable),
        before_enqueue(options.before_enqueue),
        manifest_(std::move(manifest)),
        tensors_(tensors_of(manifest_)),
        ops_(make_cpu_ops(*cpu_, pool)),
        network(read_model_config(model_dir), weights_of(manifest_, model_dir, *cpu_),
                manifest_.limits.max_seq_len, *ops_) {
    if (options.edit_tensors) options.edit_tensors(tensors_);
    if (options.edit_profiles) options.edit_profiles(manifest_.profiles);
  }

  const std::vector<PlanTensor>& tensors() const override { return tensors_; }
  std::int32_t num_profiles() const override {
    return static_cast<std::int32_t>(manifest_.profiles.size());
  }
  std::int64_t scratch_bytes(std::int32_t profile) const override { return kScratch << profile; }

  Shape profile_shape(const char* input, std::int32_t profile, ProfileBound bound) const override {
    const auto& dims = manifest_.profiles.at(static_cast<std::size_t>(profile)).dims;
    for (const PlanBinding& binding : manifest_.bindings) {
      if (binding.name != input) continue;
      Shape shape;
      for (const auto& axis : binding.shape) {
        const bool dynamic = axis.extent < 0;
        const auto range =
            dynamic ? dims.at(axis.dimension) : PlanProfile::Range{axis.extent, axis.extent};
        shape.push_back(bound == ProfileBound::kMin ? range.least : range.most);
      }
      return shape;
    }
    fail(ErrorCode::kInternal, kWhere, "expected a dynamic input, got ", input);
  }

  std::unique_ptr<PlanContext> make_context(std::int32_t profile, void* scratch, std::int64_t bytes,
                                            bool) override {
    check_internal(scratch != nullptr && bytes >= scratch_bytes(profile), kWhere, "expected ",
                   scratch_bytes(profile), " bytes of scratch, got ", bytes);
    use->context_profiles.push_back(profile);
    return std::make_unique<FakeContext>(*this, profile);
  }

  const PlanTensor& tensor(const std::string& name) const {
    for (const PlanTensor& candidate : tensors_) {
      if (candidate.name == name) return candidate;
    }
    fail(ErrorCode::kInternal, kWhere, "expected a tensor of the plan, got ", name);
  }

 private:
  static ModelWeights weights_of(const PlanManifest& manifest, const std::string& model_dir,
                                 Device& cpu) {
    if (manifest.weights_are_inputs) return {};
    return load_weights(read_model_config(model_dir), std::make_shared<const Checkpoint>(model_dir),
                        cpu);
  }

 public:
  FakeDevice& device;
  std::shared_ptr<PlanUse> use;
  const bool can_capture;
  const std::function<void(std::int32_t)> before_enqueue;

 private:
  PlanManifest manifest_;
  std::vector<PlanTensor> tensors_;
  std::unique_ptr<Device> cpu_ = make_cpu_device();
  std::unique_ptr<Ops> ops_;

 public:
  FakeNetwork network;
};

void FakeContext::set_shape(const char* input, const Shape& shape) {
  const PlanTensor& tensor = plan_.tensor(input);
  check_internal(tensor.is_input, kWhere, "expected an input, got ", input);
  const Shape least = plan_.profile_shape(input, profile_, ProfileBound::kMin);
  const Shape most = plan_.profile_shape(input, profile_, ProfileBound::kMax);
  bool within = shape.size() == least.size();
  for (std::size_t i = 0; within && i < shape.size(); ++i) {
    within = shape[i] >= least[i] && shape[i] <= most[i];
  }
  check_internal(within, kWhere, "expected ", input, " between ", to_string(least), " and ",
                 to_string(most), " in profile ", profile_, ", got ", to_string(shape));
  shapes_[input] = shape;
  ++plan_.use->shapes_set;
  ++changes_;
  has_run_ = false;
}

void FakeContext::set_address(const char* tensor, void* data) {
  plan_.tensor(tensor);
  check_internal(data != nullptr, kWhere, "expected an address of ", tensor, ", got null");
  // The CPU sampler's columns, unlike the GPU's, are ordinary host memory.
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % 256 == 0;
  check_internal(aligned || std::string(tensor) == "last_columns", kWhere,
                 "expected an aligned address of ", tensor);
  addresses_[tensor] = data;
  ++plan_.use->addresses_set;
  ++changes_;
}

void FakeContext::enqueue() {
  if (plan_.before_enqueue) plan_.before_enqueue(profile_);
  if (plan_.device.mode() == FakeDevice::Mode::kRecording) {
    check_internal(plan_.can_capture, kWhere, "expected no recording of this plan");
    check_internal(has_run_, kWhere, "expected a run with these shapes before the recording");
    ++plan_.use->recordings;
    recorded_changes_ = changes_;
    return;
  }
  if (plan_.device.mode() == FakeDevice::Mode::kReplaying) {
    check_internal(changes_ == recorded_changes_, kWhere,
                   "expected the context as it was when it was recorded");
  } else {
    ++plan_.use->enqueues;
  }
  run();
  has_run_ = true;
}

bool FakeContext::capturable() const { return plan_.can_capture; }

Bound FakeContext::bind() const {
  Bound bound;
  std::map<std::string, std::int64_t> dimensions;
  for (const PlanTensor& tensor : plan_.tensors()) {
    const auto address = addresses_.find(tensor.name);
    check_internal(address != addresses_.end(), kWhere, "expected an address of ", tensor.name,
                   ", got none");
    Shape shape = tensor.shape;
    bool dynamic = false;
    for (const std::int64_t extent : shape) dynamic = dynamic || extent < 0;
    if (tensor.is_input && dynamic) {
      const auto given = shapes_.find(tensor.name);
      check_internal(given != shapes_.end(), kWhere, "expected a shape of ", tensor.name,
                     ", got none");
      shape = given->second;
    } else if (!tensor.is_input) {
      const bool cache = !tensor.aliased.empty();
      shape[0] = shapes_.at(cache ? "row_index" : "logit_rows")[0];
    }
    bound[tensor.name] = {address->second, tensor.dtype, shape};
  }
  return bound;
}

void FakeContext::check_alias(const PlanTensor& tensor) const {
  if (tensor.aliased.empty()) return;
  check_internal(addresses_.at(tensor.name) == addresses_.at(tensor.aliased), kWhere, "expected ",
                 tensor.name, " at the address of ", tensor.aliased);
}

void FakeContext::run() {
  Bound bound = bind();
  for (const PlanTensor& tensor : plan_.tensors()) check_alias(tensor);
  const auto same = [&](const char* a, std::size_t axis, const char* b, std::size_t other) {
    check_internal(bound.at(a).dim(axis) == bound.at(b).dim(other), kWhere, "expected axis ", axis,
                   " of ", a, " as axis ", other, " of ", b);
  };
  same("text_place", 0, "text_ids", 0);
  same("audio_place", 0, "audio_ids", 0);
  same("position", 0, "row_index", 0);
  same("position", 1, "row_index", 1);
  same("write_index", 0, "row_index", 0);
  same("kv_length", 0, "row_index", 0);
  same("past_k_0", 0, "row_index", 0);
  plan_.use->runs.push_back({profile_, bound.at("row_index").dim(0), bound.at("row_index").dim(1)});
  plan_.network.run(bound);
}

}  // namespace

FakePlanRuntime::FakePlanRuntime(FakeDevice& device, ThreadPool& pool, std::string model_dir,
                                 FakePlanOptions options, std::shared_ptr<PlanUse> use)
    : device_(device),
      pool_(pool),
      model_dir_(std::move(model_dir)),
      options_(std::move(options)),
      use_(use ? std::move(use) : std::make_shared<PlanUse>()) {}

std::unique_ptr<Plan> FakePlanRuntime::load(const std::string& path) {
  const MappedFile file(path);
  check(file.text() == kPlanText, path.c_str(), "expected a plan of the test double, got ",
        file.size(), " other bytes");
  return std::make_unique<FakePlan>(
      read_manifest(std::filesystem::path(path).parent_path().string()), model_dir_, device_, pool_,
      options_, use_);
}

}  // namespace higgs_rt::testing
