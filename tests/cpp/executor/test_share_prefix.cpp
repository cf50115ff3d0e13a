#include <numeric>

#include "check.h"
#include "executor/support.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

std::vector<std::int32_t> counted(std::int32_t count, std::int32_t first = 1) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Text, a recording and table rows: 8 + (6 + 5) + 3 positions, then the text of the request.
Request voice_request(const EngineSpec& spec, std::int32_t last_id) {
  Request request = text_request(counted(8), 12);
  PromptSegment audio;
  audio.kind = PromptSegment::Kind::kAudio;
  for (std::int32_t i = 0; i < 6 * spec.num_codebooks; ++i) audio.ids.push_back(i % 16);
  PromptSegment table;
  table.kind = PromptSegment::Kind::kTable;
  table.rows.assign(static_cast<std::size_t>(3 * spec.hidden_size), 0.5f);
  request.prompt.push_back(audio);
  request.prompt.push_back(table);
  request.prompt.push_back(text_segment({90, 91, last_id}));
  return request;
}

// Runs a request to its end and returns how many of its positions were found.
std::int64_t hits_of(Rig& rig, const Request& request) {
  const std::int64_t before = rig.executor.stats().prefix_hits;
  const auto sink = std::make_shared<CollectingSink>();
  rig.executor.submit(request, sink);
  REQUIRE(sink->wait());
  expect_reference(*sink, request, rig.engine.spec());
  return rig.executor.stats().prefix_hits - before;
}

}  // namespace

EACH_MODE("prefix: a second request computes only what the first has not") {
  Rig rig(roomy_spec(), small_config(), mode);  // blocks of 4 positions
  const EngineSpec& spec = rig.engine.spec();
  const std::int32_t size = prompt_positions(voice_request(spec, 1), spec);
  EXPECT_EQ(size, 25);
  EXPECT_EQ(hits_of(rig, voice_request(spec, 1)), 0);
  EXPECT_EQ(rig.executor.stats().prompt_rows, 25);
  EXPECT_EQ(rig.executor.stats().cached_blocks, 6);
  EXPECT_EQ(hits_of(rig, voice_request(spec, 1)), 24);
  EXPECT_EQ(rig.executor.stats().prompt_rows, 26);
  EXPECT_EQ(hits_of(rig, voice_request(spec, 2)), 24);  // differs behind the last full block
  EXPECT_EQ(rig.executor.stats().prefix_positions, 75);
  EXPECT_EQ(rig.executor.stats().prefix_evictions, 0);
  rig.check_clean();
}

TEST("prefix: text ids, codes and table rows are looked at, and their order") {
  Rig rig(roomy_spec(), small_config());
  const Request first = voice_request(rig.engine.spec(), 1);
  EXPECT_EQ(hits_of(rig, first), 0);
  Request other = first;
  other.prompt[0].ids[0] = 50;
  EXPECT_EQ(hits_of(rig, other), 0);
  other = first;
  other.prompt[0].ids[7] = 50;
  EXPECT_EQ(hits_of(rig, other), 4);
  other = first;
  other.prompt[1].ids[5] = 3;  // codebook 0, frame 5: the seventh column, position 14
  EXPECT_EQ(hits_of(rig, other), 12);
  other = first;
  other.prompt[2].rows[7] += 1e-6f;  // position 20
  EXPECT_EQ(hits_of(rig, other), 20);
  other = first;
  std::swap(other.prompt[1], other.prompt[2]);
  EXPECT_EQ(hits_of(rig, other), 8);
  rig.check_clean();
}

TEST("prefix: a whole number of blocks leaves the first column to compute") {
  Rig rig(roomy_spec(), small_config());
  const Request request = text_request(counted(16), 9, 3);
  EXPECT_EQ(hits_of(rig, request), 0);
  EXPECT_EQ(hits_of(rig, request), 16);
  EXPECT_EQ(rig.executor.stats().prompt_rows, 16);
  rig.check_clean();
}

TEST("prefix: none is shared where it is off or where blocks cannot be") {
  ExecutorConfig off = small_config();
  off.prefix_cache = 0;
  EngineSpec slots = roomy_spec();
  slots.shared_blocks = false;
  for (const auto& [spec, config] : {std::pair(roomy_spec(), off), {slots, small_config()}}) {
    Rig rig(spec, config);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(hits_of(rig, voice_request(spec, 1)), 0);
    EXPECT_EQ(rig.executor.stats().prefix_positions, 0);
    EXPECT_EQ(rig.executor.stats().cached_blocks, 0);
    rig.check_clean();
  }
  off.prefix_cache = 1.5;
  FakeEngine engine(roomy_spec());
  const auto sampler = make_cpu_sampler({4, 4, 18});
  EXPECT_THROWS(Executor(engine, *sampler, off),
                "[prefix_cache] expected a share of 0..1, got 1.5");
}

EACH_MODE("prefix: of two that arrive together the second goes on where the first is") {
  Rig rig(roomy_spec(), small_config(), mode);  // 16 rows a step
  const Request request = text_request(counted(90), 5);
  const auto first = std::make_shared<CollectingSink>();
  const auto second = std::make_shared<CollectingSink>();
  {
    Gate gate(rig.engine);
    const auto before = std::make_shared<CollectingSink>();
    rig.executor.submit(text_request({99}, 2), before);
    gate.wait_reached();
    rig.executor.submit(request, first);
    rig.executor.submit(request, second);
    gate.release();
  }
  for (const auto& sink : {first, second}) {
    REQUIRE(sink->wait());
    expect_reference(*sink, request, rig.engine.spec());
  }
  // The second starts when the first leaves rows of a step to it.
  EXPECT(rig.executor.stats().prefix_hits >= 80);
  rig.check_clean();
}

TEST("prefix: what a failed step or a failed device has left is not used") {
  Rig rig(roomy_spec(), small_config());
  rig.engine.poison = 13;
  const Request request = text_request(counted(12), 5);
  EXPECT_EQ(hits_of(rig, request), 0);
  const auto failed = std::make_shared<CollectingSink>();
  rig.executor.submit(text_request(counted(14), 5), failed);  // shares 12 positions, then fails
  REQUIRE(failed->wait());
  EXPECT(failed->answer().reason == FinishReason::kError);
  EXPECT_EQ(hits_of(rig, request), 12);
  EXPECT_EQ(rig.executor.stats().cached_blocks, 3);
  rig.check_clean();
}

TEST("prefix: cached blocks never keep a request from starting") {
  EngineSpec spec = small_spec({.block_tokens = 4, .num_blocks = 10});
  ExecutorConfig config = small_config();
  config.prefix_cache = 1;
  Rig rig(spec, config);
  for (std::int32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(hits_of(rig, text_request(counted(30, 1 + i), 8)), 0);
  }
  const RuntimeStats stats = rig.executor.stats();
  EXPECT_EQ(stats.preemptions, 0);
  EXPECT_EQ(stats.free_blocks, 10);
  EXPECT(stats.cached_blocks > 0 && stats.prefix_evictions > 0);
  rig.check_clean();
}
