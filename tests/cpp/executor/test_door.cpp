#include <limits>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

using Kind = PromptSegment::Kind;

void expect_refused(Executor& executor, const Request& request, const std::string& part) {
  const auto sink = std::make_shared<CollectingSink>();
  EXPECT_THROWS(executor.submit(request, sink), part);
  EXPECT(code_of([&] { executor.submit(request, sink); }) == ErrorCode::kInvalidArgument);
  EXPECT(!sink->finished());
}

}  // namespace

TEST("executor: every door error names its field, and the running request is not harmed") {
  EngineSpec spec = roomy_spec();
  spec.largest_table_value = 65504;  // that of fp16
  Rig rig(spec, small_config());
  const auto running = std::make_shared<CollectingSink>();
  const Request good = long_request();
  rig.executor.submit(good, running);

  const auto refused = [&](const Request& request, const std::string& part) {
    expect_refused(rig.executor, request, part);
  };
  const auto with = [&](PromptSegment segment) {
    Request request = text_request({1}, 8);
    request.prompt.insert(request.prompt.begin(), std::move(segment));
    return request;
  };
  Request request;
  refused(request, "[submit] prompt: expected at least 1 segment, got 0");
  refused(text_request({}, 8), "prompt[0].ids: expected at least 1 text id, got 0");
  refused(text_request({1, 2, 100}, 8), "prompt[0].ids[2]: expected 0..99, got 100");
  refused(text_request({-1}, 8), "prompt[0].ids[0]: expected 0..99, got -1");

  PromptSegment audio{.kind = Kind::kAudio, .ids = {0, 1, 2, 15}, .rows = {}};
  request = text_request({1}, 8);
  request.prompt.push_back(audio);
  refused(request, "prompt[1].kind: expected the last segment to be text");
  audio.ids = {0, 1, 2, 16};
  refused(with(audio), "prompt[0].ids[3]: expected 0..15, got 16");
  audio.ids = {0, 1, 2};
  refused(with(audio), "a positive multiple of num_codebooks 4, got 3");
  audio.ids = {};
  refused(with(audio), "a positive multiple of num_codebooks 4, got 0");
  audio.ids = {0, 1, 2, 15};
  audio.model_axis = 8;
  refused(with(audio), "prompt[0].model_axis: expected num_codebooks 4 (or 0, unchecked), got 8");
  audio.model_axis = 0;
  audio.rows = {1.0f};
  refused(with(audio), "prompt[0].rows: expected none in a text or audio segment, got 1");

  PromptSegment table{.kind = Kind::kTable, .ids = {}, .rows = std::vector<float>(12, 1.0f)};
  table.rows[7] = std::numeric_limits<float>::quiet_NaN();
  refused(with(table), "prompt[0].rows[7]: expected a finite number");
  table.rows[7] = -65505.0f;
  refused(with(table), "prompt[0].rows[7]: expected a number in -65504..65504");
  table.rows.resize(7, 0.0f);
  refused(with(table), "prompt[0].rows: expected a positive multiple of hidden_size 6, got 7");
  table.rows.clear();
  refused(with(table), "a positive multiple of hidden_size 6, got 0");
  table.rows.assign(6, 0.0f);
  table.model_axis = 3;
  refused(with(table), "prompt[0].model_axis: expected hidden_size 6");
  table.model_axis = 0;
  table.ids = {1};
  refused(with(table), "prompt[0].ids: expected none in a table segment, got 1");
  table.kind = static_cast<Kind>(7);
  table.rows.clear();
  refused(with(table), "prompt[0].kind: expected text (0), audio (1) or table (2), got 7");

  refused(text_request({1}, 0), "max_columns: expected 1..200 (max_sequence), got 0");
  refused(text_request({1}, 201), "max_columns: expected 1..200 (max_sequence), got 201");
  refused(text_request({1, 2}, 199), "prompt: expected at most 1 positions (max_sequence 200");
  request = text_request({1}, 8);
  request.sampling.top_p = 0;
  refused(request, "top_p");
  EXPECT_THROWS(rig.executor.submit(text_request({1}, 8), nullptr), "sink");

  EXPECT(rig.executor.stats().refused > 40);
  REQUIRE(running->wait());
  expect_reference(*running, good, rig.engine.spec());
  rig.check_clean();
}

TEST("executor: a request that can never fit the blocks is refused, one that just fits runs") {
  Rig rig(small_spec({.block_tokens = 4, .num_blocks = 5}), small_config());
  expect_refused(rig.executor, text_request({1, 2}, 20),
                 "prompt: expected to need at most 5 KV blocks of 4 positions, got 6");
  expect_refused(rig.executor, text_request(std::vector<std::int32_t>(20, 1), 1), "5 KV blocks");
  for (const Request& request :
       {text_request({1, 2}, 19), text_request(std::vector<std::int32_t>(19, 1), 1)}) {
    const auto sink = std::make_shared<CollectingSink>();
    rig.executor.submit(request, sink);
    REQUIRE(sink->wait());
    expect_reference(*sink, request, rig.engine.spec());
  }
  rig.check_clean();
}

TEST("executor: limits that do not fit the engine are refused") {
  const auto refused = [](const ExecutorConfig& bad, const char* part) {
    EXPECT_THROWS(Rig(roomy_spec(), bad), part);
  };
  refused({.max_batch = 9, .max_step_tokens = 16, .max_sequence = 99}, "max_batch: expected 1..8");
  refused({.max_batch = 4, .max_step_tokens = 4, .max_sequence = 99},
          "max_step_tokens: expected 5");
  refused({.max_batch = 4, .max_step_tokens = 65, .max_sequence = 99}, "5..64");
  refused({.max_batch = 4, .max_step_tokens = 16, .max_sequence = 513},
          "max_sequence: expected 2..512");
  refused({.max_batch = 4, .max_queue = 0, .max_step_tokens = 16, .max_sequence = 99}, "max_queue");
}

TEST("executor: a full queue refuses with its size and takes again later") {
  Rig rig(roomy_spec(), small_config(1, 3));
  Gate gate(rig.engine);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  const auto submit = [&] {
    sinks.push_back(std::make_shared<CollectingSink>());
    return rig.executor.submit(text_request({7, 8}, 12), sinks.back());
  };
  submit();
  gate.wait_reached();
  for (int i = 0; i < 3; ++i) submit();
  EXPECT_EQ(rig.executor.stats().waiting, 3);
  EXPECT_THROWS(submit(), "[submit] expected fewer than max_queue 3 waiting requests, got 3");
  EXPECT(code_of(submit) == ErrorCode::kResourceExhausted);
  EXPECT_EQ(rig.executor.stats().refused, 2);
  sinks.resize(4);
  gate.release();
  for (const auto& sink : sinks) REQUIRE(sink->wait());
  submit();
  REQUIRE(sinks.back()->wait());
  for (const auto& sink : sinks)
    expect_reference(*sink, text_request({7, 8}, 12), rig.engine.spec());
  rig.check_clean();
}
