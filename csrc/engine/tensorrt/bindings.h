// The decoder's bindings (revision 1 of docs/tensorrt.md) and the checks that a manifest, a plan
// and a runtime agree on them.
#pragma once

#include "engine/tensorrt/manifest.h"
#include "engine/tensorrt/plan.h"

namespace higgs_rt {

constexpr std::int32_t kPrefillProfile = 0;
constexpr std::int32_t kDecodeProfile = 1;

// "10.16.1" of 101601.
std::string version_text(std::int32_t version);

// Everything but weight inputs, by the manifest's model, precision and capacity.
std::vector<PlanBinding> expected_bindings(const PlanManifest& manifest);

// All throw kInvalidArgument, or kUnsupported for another package, version or device, and name the
// manifest's field or the plan's tensor.
// `least`, `built` and `found`: the oldest version that has what plans need, that of the headers
// and that of the library, as the vendor writes them: major * 10000 + minor * 100 + patch.
void check_library(const std::string& package, std::int32_t least, std::int32_t built,
                   std::int32_t found);
void check_package(const PlanManifest& manifest, const PlanRuntime& runtime);
void check_manifest_bindings(const PlanManifest& manifest);
void check_plan(const PlanManifest& manifest, const Plan& plan);

}  // namespace higgs_rt
