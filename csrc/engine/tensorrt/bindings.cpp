#include "engine/tensorrt/bindings.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "tensorrt";

using Axis = PlanBinding::Axis;

Axis named(const char* dimension) { return {-1, dimension}; }
Axis fixed(std::int64_t extent) { return {extent, ""}; }

std::string to_text(const std::vector<Axis>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const Axis& axis = shape[i];
    text += (i == 0 ? "" : ", ") + (axis.extent < 0 ? axis.dimension : std::to_string(axis.extent));
  }
  return text + "]";
}

std::string describe(bool is_input, DType dtype, const std::string& shape) {
  return std::string(is_input ? "input " : "output ") + name_of(dtype) + " " + shape;
}

std::string join(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ", ") + text;
  return out.empty() ? "none" : out;
}

[[noreturn]] void refuse_field(const PlanManifest& manifest, ErrorCode code,
                               const std::string& field, const std::string& expected,
                               const std::string& got) {
  fail(code, manifest.path.c_str(), field, ": expected ", expected, ", got ", got);
}

// "10.16.1" -> "10.16"
std::string major_minor(const std::string& version) {
  const std::size_t first = version.find('.');
  if (first == std::string::npos) return version;
  return version.substr(0, version.find('.', first + 1));
}

template <class List>
auto find_named(const List& list, const std::string& name) {
  return std::find_if(list.begin(), list.end(),
                      [&](const auto& item) { return item.name == name; });
}

// What the engine asks of a dimension in a profile.
struct Need {
  std::int32_t profile;
  const char* dimension;
  std::int64_t least;
  std::int64_t most;
};

std::vector<Need> needs(const PlanLimits& limits) {
  const std::int64_t rows = limits.max_prefill;
  const std::int64_t slots = limits.max_batch;
  return {{kPrefillProfile, "B", 1, 1},
          {kPrefillProfile, "S", 1, rows},
          {kPrefillProfile, "Nt", 1, rows},
          {kPrefillProfile, "Na", 0, rows},
          {kPrefillProfile, "P", 1, limits.max_prompt_table},
          {kPrefillProfile, "C", 1, rows},
          {kPrefillProfile, "R", slots, slots},
          {kPrefillProfile, "L", 1, rows},
          {kDecodeProfile, "B", 1, slots},
          {kDecodeProfile, "S", 1, 1},
          {kDecodeProfile, "Nt", 0, 0},
          {kDecodeProfile, "Na", 1, slots},
          {kDecodeProfile, "P", 1, 1},
          {kDecodeProfile, "C", slots, slots},
          {kDecodeProfile, "R", slots, slots},
          {kDecodeProfile, "L", 1, slots}};
}

void check_profiles(const PlanManifest& manifest) {
  std::vector<std::string> names;
  names.reserve(manifest.profiles.size());
  for (const PlanProfile& profile : manifest.profiles) names.push_back(profile.name);
  if (names != std::vector<std::string>{"prefill", "decode"}) {
    refuse_field(manifest, ErrorCode::kInvalidArgument, "decoder.profiles", "prefill, decode",
                 join(names));
  }
  for (const Need& need : needs(manifest.limits)) {
    const PlanProfile& profile = manifest.profiles[static_cast<std::size_t>(need.profile)];
    const std::string field = "decoder.profiles." + profile.name + "." + need.dimension;
    const std::string expected = "a range that covers " + std::to_string(need.least) + ".." +
                                 std::to_string(need.most) + " (by limits)";
    const auto found = profile.dims.find(need.dimension);
    if (found == profile.dims.end()) {
      refuse_field(manifest, ErrorCode::kInvalidArgument, field, expected, "none");
    }
    const auto [least, most] = found->second;
    if (least > need.least || most < need.most) {
      refuse_field(manifest, ErrorCode::kInvalidArgument, field, expected,
                   std::to_string(least) + ".." + std::to_string(most));
    }
  }
}

void check_tensor(const PlanManifest& manifest, const Plan& plan, const PlanBinding& wanted) {
  const auto found = find_named(plan.tensors(), wanted.name);
  const std::string expected = describe(wanted.is_input, wanted.dtype, to_text(wanted.shape));
  check(found != plan.tensors().end(), manifest.plan_path.c_str(), "expected tensor ", wanted.name,
        " (", expected, "), got none");
  bool same = found->is_input == wanted.is_input && found->dtype == wanted.dtype &&
              found->shape.size() == wanted.shape.size();
  for (std::size_t i = 0; same && i < wanted.shape.size(); ++i) {
    same = found->shape[i] == wanted.shape[i].extent;
  }
  check(same, manifest.plan_path.c_str(), "expected tensor ", wanted.name, " as ", expected,
        ", got ", describe(found->is_input, found->dtype, to_string(found->shape)));
  if (wanted.name.starts_with("present_")) {
    const std::string past = "past_" + wanted.name.substr(8);
    check(found->aliased == past, manifest.plan_path.c_str(), "expected output ", wanted.name,
          " to alias ", past, ", got ", found->aliased.empty() ? "nothing" : found->aliased);
  }
}

// The plan's profiles are the manifest's.
void check_ranges(const PlanManifest& manifest, const Plan& plan, const PlanBinding& input) {
  const bool dynamic = std::any_of(input.shape.begin(), input.shape.end(),
                                   [](const Axis& axis) { return axis.extent < 0; });
  for (std::size_t p = 0; dynamic && p < manifest.profiles.size(); ++p) {
    const PlanProfile& profile = manifest.profiles[p];
    const auto index = static_cast<std::int32_t>(p);
    const Shape least = plan.profile_shape(input.name.c_str(), index, ProfileBound::kMin);
    const Shape most = plan.profile_shape(input.name.c_str(), index, ProfileBound::kMax);
    for (std::size_t axis = 0; axis < input.shape.size(); ++axis) {
      if (input.shape[axis].extent >= 0) continue;
      const std::string& dimension = input.shape[axis].dimension;
      const auto found = profile.dims.find(dimension);
      check(found != profile.dims.end(), manifest.path.c_str(), "decoder.profiles.", profile.name,
            ".", dimension, ": expected a range for the shape of ", input.name, ", got none");
      check(least.at(axis) == found->second.least && most.at(axis) == found->second.most,
            manifest.plan_path.c_str(), "expected ", dimension, " of ", input.name, " in ",
            found->second.least, "..", found->second.most, " (profile ", profile.name,
            " of the manifest), got ", least.at(axis), "..", most.at(axis));
    }
  }
}

}  // namespace

std::vector<PlanBinding> expected_bindings(const PlanManifest& manifest) {
  const PlanModel& model = manifest.model;
  const Axis books = fixed(model.num_codebooks);
  const std::vector<Axis> cache = {named("B"), fixed(model.num_kv_heads),
                                   fixed(manifest.limits.max_seq_len), fixed(model.head_dim)};
  constexpr DType kI32 = DType::kI32;
  constexpr DType kF32 = DType::kF32;
  std::vector<PlanBinding> out = {
      {"text_ids", true, kI32, {named("Nt")}},
      {"audio_ids", true, kI32, {named("Na")}},
      {"table_rows", true, kF32, {named("P"), fixed(model.hidden_size)}},
      {"columns", true, kI32, {named("C"), books}},
      {"last_columns", true, kI32, {named("R"), books}},
      {"row_index", true, kI32, {named("B"), named("S")}},
      {"position", true, kI32, {named("B"), named("S")}},
      {"text_place", true, kI32, {named("Nt")}},
      {"audio_place", true, kI32, {named("Na")}},
      {"write_index", true, kI32, {named("B")}},
      {"kv_length", true, kI32, {named("B")}},
      {"logit_rows", true, kI32, {named("L")}},
      {"logits", false, kF32, {named("L"), books, fixed(model.codebook_vocab)}}};
  for (std::int32_t i = 0; i < model.num_layers; ++i) {
    const std::string layer = std::to_string(i);
    for (const char* which : {"k_", "v_"}) {
      out.push_back({std::string("past_") + which + layer, true, manifest.precision, cache});
      out.push_back({std::string("present_") + which + layer, false, manifest.precision, cache});
    }
  }
  return out;
}

std::string version_text(std::int32_t version) {
  return std::to_string(version / 10000) + '.' + std::to_string(version / 100 % 100) + '.' +
         std::to_string(version % 100);
}

void check_library(const std::string& package, std::int32_t least, std::int32_t built,
                   std::int32_t found) {
  if (found < least) {
    fail(ErrorCode::kUnsupported, kWhere, "expected ", package, ' ', version_text(least),
         " or newer, got ", version_text(found));
  }
  if (found / 10000 != built / 10000 || found < built) {
    fail(ErrorCode::kUnsupported, kWhere, "expected ", package, ' ', version_text(built),
         " (what this higgs_rt was built with) or a newer one of the same major version, got ",
         version_text(found));
  }
}

void check_package(const PlanManifest& manifest, const PlanRuntime& runtime) {
  const auto refuse = [&](const char* field, const std::string& expected, const std::string& got) {
    refuse_field(manifest, ErrorCode::kUnsupported, field, expected, got);
  };
  if (manifest.backend != runtime.package()) {
    refuse("backend", runtime.package() + " (what this higgs_rt runs)", manifest.backend);
  }
  if (major_minor(manifest.backend_version) != major_minor(runtime.version())) {
    refuse("backend_version",
           major_minor(runtime.version()) + " (the library that is loaded; " +
               "a plan belongs to the version that built it)",
           manifest.backend_version);
  }
  const std::string target = runtime.target();
  if (std::find(manifest.targets.begin(), manifest.targets.end(), target) ==
      manifest.targets.end()) {
    refuse("targets", target + " (this device)", join(manifest.targets));
  }
}

void check_manifest_bindings(const PlanManifest& manifest) {
  const std::vector<PlanBinding> expected = expected_bindings(manifest);
  for (const PlanBinding& wanted : expected) {
    const std::string field = "decoder.bindings." + wanted.name;
    const std::string text = describe(wanted.is_input, wanted.dtype, to_text(wanted.shape));
    const auto found = find_named(manifest.bindings, wanted.name);
    if (found == manifest.bindings.end()) {
      refuse_field(manifest, ErrorCode::kInvalidArgument, field, text, "none");
    }
    if (found->is_input != wanted.is_input || found->dtype != wanted.dtype ||
        found->shape != wanted.shape) {
      refuse_field(manifest, ErrorCode::kInvalidArgument, field, text,
                   describe(found->is_input, found->dtype, to_text(found->shape)));
    }
  }
  for (const PlanBinding& binding : manifest.bindings) {
    if (find_named(expected, binding.name) != expected.end()) continue;
    if (find_named(manifest.weight_inputs, binding.name) != manifest.weight_inputs.end()) continue;
    refuse_field(manifest, ErrorCode::kInvalidArgument, "decoder.bindings",
                 "the tensors of revision 1", binding.name);
  }
  check_profiles(manifest);
}

void check_plan(const PlanManifest& manifest, const Plan& plan) {
  check(plan.num_profiles() == static_cast<std::int32_t>(manifest.profiles.size()),
        manifest.plan_path.c_str(), "expected ", manifest.profiles.size(), " profiles, got ",
        plan.num_profiles());
  std::vector<PlanBinding> expected = expected_bindings(manifest);
  for (const PlanWeight& weight : manifest.weight_inputs) {
    PlanBinding binding{weight.name, true, weight.dtype, {}};
    for (const std::int64_t extent : weight.shape) binding.shape.push_back(fixed(extent));
    expected.push_back(std::move(binding));
  }
  for (const PlanBinding& wanted : expected) {
    check_tensor(manifest, plan, wanted);
    if (wanted.is_input) check_ranges(manifest, plan, wanted);
  }
  for (const PlanTensor& tensor : plan.tensors()) {
    check(find_named(expected, tensor.name) != expected.end(), manifest.plan_path.c_str(),
          "expected the tensors of the manifest, got also ", tensor.name);
  }
}

}  // namespace higgs_rt
