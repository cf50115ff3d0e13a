// Plan folders of the test double, for the checkpoints of tests/golden/lm.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/temporary_directory.h"

namespace higgs_rt::testing {

struct FolderOptions {
  std::string model_dir;
  std::int32_t max_batch = 4;
  std::int32_t max_seq_len = 64;
  std::int32_t max_prefill = 48;
  std::int32_t max_prompt_table = 8;
  bool weights_are_inputs = false;
  // Texts of manifest.json that are replaced, each of which must be there.
  std::vector<std::pair<std::string, std::string>> edits;
};

// Writes manifest.json, as docs/tensorrt.md describes it, and a plan of FakePlanRuntime.
void write_plan_folder(const TemporaryDirectory& directory, const FolderOptions& options);

std::string golden_model(const std::string& layout);

}  // namespace higgs_rt::testing
