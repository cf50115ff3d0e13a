// Manifests that build_engine wrote (tests/golden/make_tensorrt_golden.py) are what the engine
// reads.
#include <fstream>
#include <sstream>

#include "check.h"
#include "engine/golden.h"
#include "engine/tensorrt/bindings.h"
#include "engine/tensorrt/tensorrt_engine.h"
#include "io/checkpoint_hash.h"
#include "tensorrt/fake_plan.h"
#include "tensorrt/plan_folder.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

// Keeps the manifest beside a plan of the test double.
void write_folder(const TemporaryDirectory& directory, const std::string& name) {
  const std::ifstream file(std::string(HIGGS_RT_GOLDEN_DIR) + "/tensorrt/" + name + ".json");
  std::ostringstream all;
  all << file.rdbuf();
  std::string text = all.str();
  const std::string field = "\"plan_bytes\": ";
  const auto at = text.find(field);
  REQUIRE(at != std::string::npos);
  const auto begin = at + field.size();
  text.replace(begin, text.find(',', begin) - begin,
               std::to_string(std::string(FakePlanRuntime::kPlanText).size()));
  directory.write("manifest.json", text);
  directory.write("decoder.plan", FakePlanRuntime::kPlanText);
}

}  // namespace

TEST("tensorrt: a manifest of build_engine with weights as inputs is run by the double") {
  const TemporaryDirectory directory;
  write_folder(directory, "inputs");
  FakeDevice device;
  ThreadPool pool(1);
  EngineConfig config;
  config.model_dir = golden_model("transformers");
  config.plan_dir = directory.path();
  config.max_rows = 64;
  config.max_sequences = 4;
  config.max_positions = 128;
  FakePlanOptions plan;
  plan.package = "tensorrt_rtx";
  plan.version = "1.7.1";
  plan.target = "sm120";
  const LoadedEngine loaded =
      load_plan(config, device, pool,
                std::make_unique<FakePlanRuntime>(device, pool, config.model_dir, plan));
  EXPECT_EQ(loaded.info.engine, "tensorrt_rtx");
  EXPECT_EQ(loaded.info.weight_bytes, 4 * (57376 - 300 * 32));  // fp32, without the text head
  Sequence sequence = golden_sequence("transformers");
  sequence.blocks = {2};
  const Logits logits = feed(*loaded.engine, sequence, {20, 1});
  EXPECT(largest_difference(logits, golden_logits("transformers")) <= 1e-4f);
}

TEST("tensorrt: a manifest of build_engine with bf16 constants is understood") {
  const TemporaryDirectory directory;
  write_folder(directory, "constants");
  const PlanManifest manifest = read_manifest(directory.path());
  check_manifest_bindings(manifest);
  EXPECT(manifest.precision == DType::kBF16);
  EXPECT_EQ(manifest.layout, "original");
  EXPECT_EQ(manifest.weight_dtype, "bf16");
  EXPECT_EQ(manifest.slot_bytes, std::int64_t{2} * 3 * 128 * 16 * 2);
  EXPECT_EQ(manifest.checkpoint_hash, checkpoint_hash(Checkpoint(golden_model("original"))));
  Model native("original");
  EXPECT_EQ(manifest.num_parameters, native.loaded.info.num_parameters);
}
