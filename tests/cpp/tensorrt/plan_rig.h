// An engine over the test double for a golden checkpoint, beside the native one.
#pragma once

#include <memory>
#include <string>

#include "engine/tensorrt/tensorrt_engine.h"
#include "tensorrt/fake_plan.h"
#include "tensorrt/plan_folder.h"

namespace higgs_rt::testing {

struct PlanRig {
  explicit PlanRig(FolderOptions the_folder, std::int32_t max_rows = 64, FakePlanOptions plan = {},
                   std::int32_t max_sequences = 4, bool asynchronous = false,
                   std::int32_t slots = 0)
      : pool(1) {
    write_plan_folder(directory, the_folder);
    EngineConfig config;
    config.model_dir = the_folder.model_dir;
    config.backend = "tensorrt";
    config.plan_dir = directory.path();
    config.max_rows = max_rows;
    config.max_sequences = max_sequences;
    config.max_positions = the_folder.max_seq_len;
    config.asynchronous = asynchronous;
    config.num_blocks = slots;
    loaded = load_plan(
        config, device, pool,
        std::make_unique<FakePlanRuntime>(device, pool, config.model_dir, std::move(plan), use));
  }
  TensorRtEngine& engine() { return static_cast<TensorRtEngine&>(*loaded.engine); }
  const EngineSpec& spec() const { return loaded.engine->spec(); }

  TemporaryDirectory directory;
  FakeDevice device;
  ThreadPool pool;
  std::shared_ptr<PlanUse> use = std::make_shared<PlanUse>();
  LoadedEngine loaded;
};

}  // namespace higgs_rt::testing
