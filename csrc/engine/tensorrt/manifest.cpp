#include "engine/tensorrt/manifest.h"

#include <filesystem>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

namespace fs = std::filesystem;

constexpr std::int32_t kFormatRevision = 1;
constexpr std::int32_t kTensorRevision = 1;

void require_revision(const JsonObject& json, const char* field, std::int32_t known) {
  if (json.integer(field) == known) return;
  json.refuse(field, std::to_string(known) + " (what this higgs_rt reads; build the plan anew)");
}

DType read_dtype(const JsonObject& json, const char* field) {
  const std::string text = json.text(field);
  if (text == "f32") return DType::kF32;
  if (text == "bf16") return DType::kBF16;
  if (text == "f16") return DType::kF16;
  if (text == "i32") return DType::kI32;
  json.refuse(field, "\"f32\", \"bf16\", \"f16\" or \"i32\"");
}

DType read_precision(const JsonObject& json) {
  const std::string text = json.text("precision");
  if (text == "fp32") return DType::kF32;
  if (text == "bf16") return DType::kBF16;
  if (text == "fp16") return DType::kF16;
  json.refuse("precision", "\"bf16\", \"fp16\" or \"fp32\"");
}

const std::vector<Json>& items_of(const JsonObject& json, const char* field) {
  const Json* value = json.value().find(field);
  if (value == nullptr || !value->is_array()) json.refuse(field, "an array");
  return value->items();
}

std::vector<std::string> read_texts(const JsonObject& json, const char* field) {
  std::vector<std::string> out;
  for (const Json& item : items_of(json, field)) {
    if (item.type() != Json::Type::kString) json.refuse(field, "an array of strings");
    out.push_back(item.string_value());
  }
  return out;
}

PlanModel read_model(const JsonObject& json) {
  PlanModel model;
  model.num_layers = json.positive("num_layers");
  model.hidden_size = json.positive("hidden_size");
  model.num_heads = json.positive("num_heads");
  model.num_kv_heads = json.positive("num_kv_heads");
  model.head_dim = json.positive("head_dim");
  model.text_vocab = json.positive("text_vocab");
  model.num_codebooks = json.positive("num_codebooks");
  model.codebook_vocab = json.positive("codebook_vocab");
  return model;
}

PlanLimits read_limits(const JsonObject& json) {
  PlanLimits limits;
  limits.max_batch = json.positive("max_batch");
  limits.max_seq_len = json.positive("max_seq_len");
  limits.max_prefill = json.positive("max_prefill");
  limits.max_prompt_table = json.positive("max_prompt_table");
  return limits;
}

PlanProfile read_profile(const JsonObject& json) {
  PlanProfile profile;
  profile.name = json.text("name");
  const JsonObject dims = json.object("dims");
  for (const std::string& name : dims.value().keys()) {
    const auto range = dims.integers(name);
    if (range.size() != 3 || range[0] < 0 || range[0] > range[2]) {
      dims.refuse(name, "[min, opt, max]");
    }
    profile.dims[name] = {range[0], range[2]};
  }
  return profile;
}

PlanBinding read_binding(const JsonObject& json) {
  PlanBinding binding;
  binding.name = json.text("name");
  const std::string io = json.text("io");
  if (io != "input" && io != "output") json.refuse("io", "\"input\" or \"output\"");
  binding.is_input = io == "input";
  binding.dtype = read_dtype(json, "dtype");
  for (const Json& axis : items_of(json, "shape")) {
    const bool named = axis.type() == Json::Type::kString;
    const bool number = axis.type() == Json::Type::kInteger && axis.integer_value() >= 1;
    if (!named && !number) json.refuse("shape", "integers >= 1 and names of dimensions");
    binding.shape.push_back(named ? PlanBinding::Axis{-1, axis.string_value()}
                                  : PlanBinding::Axis{axis.integer_value(), ""});
  }
  return binding;
}

PlanWeight read_weight(const JsonObject& json) {
  PlanWeight weight;
  weight.name = json.text("name");
  weight.dtype = read_dtype(json, "dtype");
  for (const std::int32_t extent : json.integers("shape")) weight.shape.push_back(extent);
  return weight;
}

void read_kv(const JsonObject& json, PlanManifest& manifest) {
  if (read_dtype(json, "dtype") != manifest.precision) {
    json.refuse("dtype", std::string("\"") + name_of(manifest.precision) + "\" as the precision");
  }
  if (json.positive("capacity") != manifest.limits.max_seq_len) {
    json.refuse("capacity", std::to_string(manifest.limits.max_seq_len) + " as max_seq_len");
  }
  manifest.slot_bytes = json.count("slot_bytes");
  const std::int64_t bytes = std::int64_t{2} * manifest.model.num_layers * slot_stride(manifest);
  if (manifest.slot_bytes != bytes) {
    json.refuse("slot_bytes", std::to_string(bytes) + " by model and capacity");
  }
}

void read_decoder(const JsonObject& json, PlanManifest& manifest) {
  manifest.checkpoint_hash = json.text("checkpoint_hash");
  manifest.layout = json.text("layout");
  manifest.weight_dtype = json.text("weight_dtype");
  manifest.num_parameters = json.count("num_parameters");
  manifest.precision = read_precision(json);
  const std::string weights = json.text("weights");
  if (weights != "constants" && weights != "inputs") {
    json.refuse("weights", "\"constants\" or \"inputs\"");
  }
  manifest.weights_are_inputs = weights == "inputs";
  manifest.model = read_model(json.object("model"));
  manifest.limits = read_limits(json.object("limits"));
  read_kv(json.object("kv"), manifest);
  for (const JsonObject& item : json.objects("profiles")) {
    manifest.profiles.push_back(read_profile(item));
  }
  for (const JsonObject& item : json.objects("bindings")) {
    manifest.bindings.push_back(read_binding(item));
  }
  for (const JsonObject& item : json.objects("weight_inputs")) {
    manifest.weight_inputs.push_back(read_weight(item));
  }
  if (manifest.weights_are_inputs == manifest.weight_inputs.empty()) {
    json.refuse("weight_inputs", manifest.weights_are_inputs ? "the names of the weights"
                                                             : "an empty array with constants");
  }
}

void read_plan_file(const JsonObject& json, const fs::path& folder, PlanManifest& manifest) {
  const std::string name = json.text("plan");
  if (name.empty() || name.find('/') != std::string::npos) {
    json.refuse("plan", "a file name without folders");
  }
  manifest.plan_path = (folder / name).string();
  manifest.plan_bytes = json.count("plan_bytes");
  if (!fs::is_regular_file(manifest.plan_path)) {
    fail(ErrorCode::kNotFound, manifest.plan_path.c_str(), "expected the decoder's plan, got none");
  }
  const auto size = static_cast<std::int64_t>(fs::file_size(manifest.plan_path));
  check(size == manifest.plan_bytes, manifest.plan_path.c_str(), "expected ", manifest.plan_bytes,
        " bytes (plan_bytes of the manifest), got ", size,
        size < manifest.plan_bytes ? ": the file is truncated" : "");
}

}  // namespace

std::int64_t slot_stride(const PlanManifest& manifest) {
  return std::int64_t{manifest.model.num_kv_heads} * manifest.limits.max_seq_len *
         manifest.model.head_dim * static_cast<std::int64_t>(size_of(manifest.precision));
}

PlanManifest read_manifest(const std::string& plan_dir) {
  const fs::path folder(plan_dir);
  PlanManifest manifest;
  manifest.path = (folder / "manifest.json").string();
  if (!fs::exists(manifest.path)) {
    fail(ErrorCode::kNotFound, "plan_dir", "expected a plan folder with manifest.json, got ",
         plan_dir, " (make one with `python -m build_engine --model DIR --output ", plan_dir, "`)");
  }
  const JsonObject json = JsonObject::read(manifest.path);
  require_revision(json, "format_revision", kFormatRevision);
  require_revision(json, "tensor_revision", kTensorRevision);
  manifest.backend = json.text("backend");
  manifest.backend_version = json.text("backend_version");
  manifest.targets = read_texts(json, "targets");
  const JsonObject decoder = json.object("decoder");
  read_decoder(decoder, manifest);
  read_plan_file(decoder, folder, manifest);
  return manifest;
}

}  // namespace higgs_rt
