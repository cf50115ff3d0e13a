// Requests that choose among several adapters in one runtime.
#include <iostream>

#include "api/probe.h"
#include "api/support.h"
#include "check.h"
#include "few.h"
#include "higgs_rt/higgs_rt.h"
#include "model/random_adapter.h"
#include "require_cuda.h"

// Returns NULL, or what went wrong. Compiled as C.
extern "C" const char* higgs_c_adapters(const char* model_dir, const char* adapter_dir);

namespace higgs_rt::testing {
namespace {

const std::vector<std::string> kChoices = {"", "x", "y"};

const RandomAdapter& adapter_x() {
  static const RandomAdapter adapter(endless_model(), 4, 5);
  return adapter;
}
const RandomAdapter& adapter_y() {
  static const RandomAdapter adapter(endless_model(), 12, 6);
  return adapter;
}

RuntimeConfig with_adapters(const std::string& device = "cpu") {
  RuntimeConfig config = small_config(endless_model());
  config.device = device;
  config.adapters = {{"x", adapter_x().path()}, {"y", adapter_y().path()}};
  config.max_batch = 6;
  config.block_tokens = 4;
  return config;
}

std::int32_t most_columns() { return few_only() ? 14 : 60; }

Request request_of(const std::string& adapter, std::uint64_t seed,
                   std::int32_t max_columns = most_columns()) {
  Request request = speech_request(max_columns, seed, false);
  request.adapter = adapter;
  return request;
}

using Columns = std::vector<std::int32_t>;

// Two requests of each choice: one after another, or together. Then a stream that nobody reads yet
// stops about half way, with its blocks, so that nearly always all have some, however slow this
// thread is.
std::vector<Columns> run(Runtime& runtime, bool together) {
  std::vector<Stream> streams;
  std::vector<Columns> columns;
  for (std::uint64_t i = 0; i < 6; ++i) {
    Request request = request_of(kChoices[i % 3], i / 3);
    request.output = OutputKind::kFrames;
    request.stream = together;
    request.first_chunk_frames = request.max_chunk_frames = most_columns() / 2 - 3;
    Stream stream = runtime.submit(request);
    if (together) {
      streams.push_back(std::move(stream));
    } else {
      columns.push_back(read(std::move(stream)).columns);
    }
  }
  for (Stream& stream : streams) columns.push_back(read(std::move(stream)).columns);
  return columns;
}

void expect_together_as_alone(const std::string& device) {
  std::vector<Columns> alone;
  {
    const auto runtime = Runtime::load(with_adapters(device));
    EXPECT(runtime->info().adapters == (std::vector<std::string>{"x", "y"}));
    alone = run(*runtime, false);
    EXPECT(run(*runtime, true) == alone);
  }
  EXPECT(alone[0] != alone[1] && alone[1] != alone[2] && alone[0] != alone[2]);
  RuntimeConfig tight = with_adapters(device);
  tight.max_sequence = most_columns() + 12;
  tight.num_blocks = few_only() ? 14 : 40;  // six requests need 5 or 17 each
  tight.prefix_cache = 0;
  tight.max_buffered_chunks = 1;
  const auto runtime = Runtime::load(tight);
  for (int attempt = 0; attempt < 10 && runtime->stats().preemptions == 0; ++attempt) {
    EXPECT(run(*runtime, true) == alone);
  }
  EXPECT(runtime->stats().preemptions > 0);
}

TEST("requests of two adapters and of none together equal each alone, preempted ones too") {
  expect_together_as_alone("cpu");
}

TEST("cuda requests of two adapters and of none together equal each alone, preempted ones too") {
  require_cuda();
  expect_together_as_alone("cuda");
}

TEST("requests without an adapter have the columns of a runtime without adapters") {
  const auto runtime = Runtime::load(with_adapters());
  RuntimeConfig plain = with_adapters();
  plain.adapters.clear();
  const auto without = Runtime::load(plain);
  EXPECT(without->info().adapters.empty());
  EXPECT(read(runtime->submit(request_of("", 3))).columns ==
         read(without->submit(request_of("", 3))).columns);
}

TEST("an adapter that a request chooses has the logits of the merged one, within rounding") {
  Probe probe(with_adapters());
  const Answer answer = read(Runtime::load(with_adapters())->submit(request_of("x", 1)));
  const auto prompt = request_of("", 0).prompt;
  const auto logits = [&](Probe& from, const std::string& adapter) {
    return from.logits(prompt, answer.columns, 0, adapter);
  };
  for (const std::string& name : kChoices) {
    RuntimeConfig config = with_adapters();
    config.adapters.clear();
    if (!name.empty()) config.adapter_dir = (name == "x" ? adapter_x() : adapter_y()).path();
    Probe merged(config);
    const std::vector<float> expected = logits(merged, ""), got = logits(probe, name);
    REQUIRE(expected.size() == got.size());
    float largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      largest = std::max(largest, std::abs(got[i] - expected[i]));
    }
    std::cout << "  " << (name.empty() ? "none" : name) << ": largest difference " << largest
              << '\n';
    EXPECT(largest < 1e-4f);
  }
  EXPECT(logits(probe, "x") != logits(probe, "y"));
}

TEST("prompts of different adapters share no blocks") {
  const auto runtime = Runtime::load(with_adapters());
  const auto speak = [&](const std::string& adapter) {
    Request request = request_of(adapter, 4, 30);
    request.prompt.front().ids.assign(18, 7);
    return read(runtime->submit(request)).columns;
  };
  std::vector<Columns> first;
  for (const std::string& name : kChoices) first.push_back(speak(name));
  EXPECT_EQ(runtime->stats().prefix_hits, 0);
  for (std::size_t i = 0; i < kChoices.size(); ++i) {
    EXPECT(speak(kChoices[i]) == first[i]);
    EXPECT_EQ(runtime->stats().prefix_hits, static_cast<std::int64_t>(16 * (i + 1)));
  }
}

TEST("adapters are checked at the door, by name") {
  const auto runtime = Runtime::load(with_adapters());
  EXPECT_THROWS(runtime->submit(request_of("z", 1)),
                "[submit] adapter: expected one of x, y, got \"z\"");
  EXPECT_EQ(runtime->stats().refused, 1);
  const auto plain = Runtime::load(small_config(endless_model()));
  EXPECT_THROWS(plain->submit(request_of("x", 1)),
                "adapter: expected none, as the runtime was loaded without adapters, got \"x\"");
  const auto refused = [](const std::vector<NamedAdapter>& adapters, const std::string& part) {
    RuntimeConfig config = with_adapters();
    config.adapters = adapters;
    EXPECT_THROWS(Runtime::load(config), part);
  };
  const std::string path = adapter_x().path();
  refused({{"", path}}, "[adapters] name of adapter 0: expected 1..64 letters");
  refused({{"x", path}, {"a/b", path}}, "got \"a/b\"");
  refused({{"x", path}, {"x", path}}, "[adapters] expected each name once, got x twice");
  refused({{"x", ""}}, "[adapters] expected a directory for x");
  refused({{"x", "/nowhere"}}, "/nowhere");
}

TEST("a C program chooses an adapter") {
  const char* fault = higgs_c_adapters(endless_model().c_str(), adapter_x().path().c_str());
  if (fault != nullptr) report("c_program.c", 0, fault);
}

}  // namespace
}  // namespace higgs_rt::testing
