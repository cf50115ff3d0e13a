// What a plan folder must be before the engine takes it, and what the engine says otherwise.
#include "check.h"
#include "engine/golden.h"
#include "engine/tensorrt/bindings.h"
#include "tensorrt/plan_rig.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using Edits = std::vector<std::pair<std::string, std::string>>;

FolderOptions folder() {
  FolderOptions options;
  options.model_dir = golden_model("transformers");
  return options;
}

// Loads with a changed manifest, plan, or configuration.
struct Attempt {
  Edits edits = {};
  FakePlanOptions plan = {};
  std::function<void(EngineConfig&)> config = {};
  std::function<void(const TemporaryDirectory&)> files = {};
  std::int64_t bytes = -1;  // of device memory
  bool weights_are_inputs = false;

  LoadedEngine load(FakeDevice& device, ThreadPool& pool, const TemporaryDirectory& directory) {
    FolderOptions options = folder();
    options.edits = edits;
    options.weights_are_inputs = weights_are_inputs;
    write_plan_folder(directory, options);
    if (files) files(directory);
    EngineConfig engine;
    engine.model_dir = options.model_dir;
    engine.plan_dir = directory.path();
    engine.max_rows = 32;
    engine.max_sequences = 4;
    engine.max_positions = 64;
    if (config) config(engine);
    device.bytes_left = bytes;
    return load_plan(engine, device, pool,
                     std::make_unique<FakePlanRuntime>(device, pool, options.model_dir, plan));
  }
};

void refused(Attempt attempt, const std::string& part, ErrorCode code) {
  const TemporaryDirectory directory;
  FakeDevice device;
  ThreadPool pool(1);
  try {
    attempt.load(device, pool, directory);
  } catch (const Error& error) {
    const std::string text = error.what();
    if (text.find(part) == std::string::npos || error.code() != code) {
      report(__FILE__, __LINE__,
             "expected \"" + part + "\", got \"" + text + "\", code " +
                 std::to_string(static_cast<int>(error.code())));
    }
    return;
  }
  report(__FILE__, __LINE__, "expected a refusal with \"" + part + "\"");
}

constexpr ErrorCode kBad = ErrorCode::kInvalidArgument;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;

}  // namespace

TEST("tensorrt load: the description comes from the manifest") {
  const TemporaryDirectory directory;
  FakeDevice device;
  ThreadPool pool(1);
  Attempt attempt;
  attempt.config = [](EngineConfig& c) { c.max_sequences = 3; };
  const LoadedEngine loaded = attempt.load(device, pool, directory);
  EXPECT_EQ(loaded.info.engine, "tensorrt");
  EXPECT_EQ(loaded.info.num_parameters, 5771283456);
  EXPECT_EQ(loaded.info.num_layers, 2);
  EXPECT_EQ(loaded.info.block_tokens, 64);
  EXPECT_EQ(loaded.info.num_blocks, 3);
  EXPECT_EQ(loaded.info.kv_bytes, std::int64_t{3} * 64 * 2 * 8 * 4 * 2 * 2);
  EXPECT_EQ(loaded.engine->spec().kv.num_blocks, 3);
  EXPECT_EQ(loaded.info.weight_bytes, 0);  // they are in the plan
  attempt.config = [](EngineConfig& c) { c.num_blocks = 2; };
  const LoadedEngine fewer = attempt.load(device, pool, directory);
  EXPECT_EQ(fewer.engine->spec().kv.num_blocks, 2);
}

TEST("tensorrt load: without TensorRT, or with one that is too old") {
  EngineConfig config;
  config.model_dir = golden_model("transformers");
  config.backend = "tensorrt";
  const auto device = make_cpu_device();
  ThreadPool pool(1);
  EXPECT_THROWS(load_engine(config, *device, pool), "tensorrt");
  EXPECT_THROWS(check_library("tensorrt", 101500, 101601, 101401),
                "expected tensorrt 10.15.0 or newer, got 10.14.1");
  EXPECT_THROWS(check_library("tensorrt", 101500, 101601, 101500),
                "expected tensorrt 10.16.1 (what this higgs_rt was built with)");
  EXPECT_THROWS(check_library("tensorrt", 101500, 101601, 110100), "got 11.1.0");
  EXPECT_THROWS(check_library("tensorrt_rtx", 10400, 10601, 10301),
                "expected tensorrt_rtx 1.4.0 or newer, got 1.3.1");
  check_library("tensorrt", 101500, 101600, 101601);
}

TEST("tensorrt load: a plan for another package, version or device") {
  refused({.edits = {{"\"tensorrt\"", "\"tensorrt_rtx\""}}},
          "backend: expected tensorrt (what this higgs_rt runs), got tensorrt_rtx", kUnsupported);
  refused({.edits = {{"10.16.1.11", "10.15.0.2"}}},
          "backend_version: expected 10.16 (the library that is loaded", kUnsupported);
  refused({.edits = {{"\"sm89\", \"sm90\"", "\"sm89\", \"sm120\""}}},
          "targets: expected sm90 (this device), got sm89, sm120", kUnsupported);
}

TEST("tensorrt load: a plan that is missing, truncated or another file") {
  refused({.files = [](const auto& d) { std::filesystem::remove(d.path() + "/decoder.plan"); }},
          "expected the decoder's plan, got none", ErrorCode::kNotFound);
  refused({.files = [](const auto& d) { d.write("decoder.plan", "a plan of the te"); }},
          "expected 25 bytes (plan_bytes of the manifest), got 16: the file is truncated", kBad);
  refused({.files = [](const auto& d) { d.write("decoder.plan", "a plan of another kind..."); }},
          "expected a plan of the test double", kBad);
  refused({.files = [](const auto& d) { std::filesystem::remove(d.path() + "/manifest.json"); }},
          "[plan_dir] expected a plan folder with manifest.json", ErrorCode::kNotFound);
  refused({.files = [](const auto& d) { d.write("manifest.json", "{\"format_revision\": 1,"); }},
          "manifest.json", kBad);
}

TEST("tensorrt load: a manifest that is wrong is refused by the field") {
  const auto field = [](const std::string& from, const std::string& to, const std::string& part) {
    refused({.edits = {{from, to}}}, part, kBad);
  };
  field("\"format_revision\": 1", "\"format_revision\": 2", "[manifest.json:format_revision]");
  field("\"tensor_revision\": 1", "\"tensor_revision\": 3", "tensor_revision] expected 1");
  field("\"tensor_revision\": 1, ", "", "[manifest.json:tensor_revision]");
  field("\"checkpoint_hash\": \"fnv1a64:", "\"checkpoint_hash\": \"fnv1a64:0",
        "decoder.checkpoint_hash: expected fnv1a64:");
  field("\"precision\": \"fp32\"", "\"precision\": \"fp8\"", "precision] expected \"bf16\"");
  field("\"precision\": \"fp32\"", "\"precision\": \"bf16\"", "kv:dtype] expected \"bf16\"");
  field("\"capacity\": 64", "\"capacity\": 63", "kv:capacity] expected 64");
  field("\"slot_bytes\": 16384", "\"slot_bytes\": 16383", "kv:slot_bytes] expected 16384");
  field("\"weights\": \"constants\"", "\"weights\": \"inputs\"", "weight_inputs] expected");
  field("\"num_layers\": 2", "\"num_layers\": 0", "model:num_layers]");
  field("\"head_dim\": 8", "\"head_dim\": 4", "slot_bytes]");
  field("\"num_codebooks\": 8", "\"num_codebooks\": 7",
        "decoder.bindings.columns: expected input i32 [C, 7], got input i32 [C, 8]");
  field("\"name\": \"kv_length\"", "\"name\": \"kv_lengths\"",
        "decoder.bindings.kv_length: expected input i32 [B], got none");
  field("\"name\": \"logits\", \"io\": \"output\", \"dtype\": \"f32\"",
        "\"name\": \"logits\", \"io\": \"output\", \"dtype\": \"f16\"", "decoder.bindings.logits");
  field("\"bindings\": [",
        "\"bindings\": [{\"name\": \"more\", \"io\": \"input\", \"dtype\": "
        "\"i32\", \"shape\": [1]}, ",
        "decoder.bindings: expected the tensors of revision 1, got more");
  field("\"name\": \"prefill\"", "\"name\": \"first\"", "decoder.profiles: expected prefill");
  field("\"S\": [1, 48, 48]", "\"S\": [1, 47, 47]",
        "decoder.profiles.prefill.S: expected a range that covers 1..48 (by limits), got 1..47");
  field("\"Nt\": [0, 0, 0]", "\"Nt\": [1, 1, 1]", "decoder.profiles.decode.Nt");
  field("\"plan\": \"decoder.plan\"", "\"plan\": \"../decoder.plan\"",
        "plan] expected a file name");
}

TEST("tensorrt load: a plan that is not what its manifest says") {
  const auto tensor = [](std::function<void(std::vector<PlanTensor>&)> edit,
                         const std::string& part) {
    FakePlanOptions plan;
    plan.edit_tensors = std::move(edit);
    refused({.plan = plan}, part, kBad);
  };
  tensor([](auto& t) { t.erase(t.begin() + 2); }, "expected tensor table_rows (input f32 [P, 32])");
  tensor([](auto& t) { t[0].dtype = DType::kF32; }, "text_ids as input i32 [Nt], got input f32");
  tensor([](auto& t) { t[3].shape[1] = 9; }, "columns as input i32 [C, 8]");
  tensor([](auto& t) { t.push_back({"extra", DType::kI32, true, {1}, ""}); }, "got also extra");
  tensor(
      [](auto& t) {
        for (auto& item : t) item.aliased = "";
      },
      "expected output present_k_0 to alias past_k_0, got nothing");
  FakePlanOptions plan;
  plan.edit_profiles = [](auto& profiles) { profiles[1].dims["B"].most = 2; };
  refused({.plan = plan}, "in 1..4 (profile decode of the manifest), got 1..2", kBad);
  plan.edit_profiles = [](auto& profiles) { profiles.pop_back(); };
  refused({.plan = plan}, "expected 2 profiles, got 1", kBad);
}

TEST("tensorrt load: limits beyond the plan's, and another checkpoint") {
  const auto config = [](std::function<void(EngineConfig&)> change, const std::string& part) {
    refused({.config = std::move(change)}, part, kBad);
  };
  config([](EngineConfig& c) { c.max_sequences = 5; },
         "[max_batch] expected 1..4 (max_batch of the plan), got 5");
  config([](EngineConfig& c) { c.max_positions = 65; },
         "[max_sequence] expected 1..64 (max_seq_len of the plan), got 65");
  config([](EngineConfig& c) { c.num_blocks = 5; }, "[num_blocks] expected 1..4");
  config([](EngineConfig& c) { c.max_rows = 0; }, "[max_rows]");
  config([](EngineConfig& c) { c.model_dir = golden_model("original"); },
         "the plan was built from another checkpoint");
}

TEST("tensorrt load: out of memory says what did not fit") {
  refused({.bytes = 20000},
          "expected room for the values of layer 0 (65536 bytes of KV cache in 4 "
          "slots; fewer with num_blocks), got: [device] could not allocate",
          ErrorCode::kResourceExhausted);
  refused({.bytes = 66000}, "expected room for the inputs of decode",
          ErrorCode::kResourceExhausted);
  refused({.bytes = 5000, .weights_are_inputs = true}, "could not allocate",
          ErrorCode::kResourceExhausted);
}
