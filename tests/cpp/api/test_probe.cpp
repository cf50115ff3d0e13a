// Teacher-forced logits agree with what the runtime samples from.
#include "api/probe.h"
#include "api/support.h"
#include "check.h"

namespace higgs_rt::testing {
namespace {

TEST("greedy columns are the argmax of the probe's logits") {
  const RuntimeConfig config = small_config(endless_model());
  Request request = speech_request(40, 0, false);
  request.sampling = {.temperature = 0, .ras_window = 0};
  request.prompt.insert(request.prompt.begin(), {.kind = PromptSegment::Kind::kAudio,
                                                 .ids = std::vector<std::int32_t>(8 * 6, 3),
                                                 .rows = {}});
  const auto runtime = Runtime::load(config);
  const Answer answer = read(runtime->submit(request));
  Probe probe(config);
  const std::vector<float> logits = probe.logits(request.prompt, answer.columns, 0);
  REQUIRE(logits.size() == std::size_t{40} * 8 * 32);
  EXPECT(logits == probe.logits(request.prompt, answer.columns, 1));
  EXPECT(logits == probe.logits(request.prompt, answer.columns, 5));
  for (std::size_t column = 8; column + 1 < 40; ++column) {
    for (std::size_t k = 0; k < 8; ++k) {
      const float* row = logits.data() + (column * 8 + k) * 32;
      EXPECT_EQ(std::max_element(row, row + 32) - row, answer.columns[(column + 1) * 8 + k]);
    }
  }
}

TEST("the probe names what is wrong") {
  Probe probe(small_config(endless_model()));
  const auto prompt = speech_request(9, 0, false).prompt;
  std::vector<std::int32_t> columns(16, 30);
  EXPECT_THROWS(probe.logits(prompt, columns, 33), "[chunk_rows] expected 0..32");
  EXPECT_THROWS(probe.logits(prompt, std::span(columns).first(7), 0), "[columns]");
  EXPECT_THROWS(probe.logits({}, columns, 0), "prompt");
  columns[9] = 32;
  EXPECT_THROWS(probe.logits(prompt, columns, 0), "[columns] [1, 1]: expected 0..31");
  columns[3] = 2;
  EXPECT_THROWS(probe.logits(prompt, columns, 0), "expected BOS 30");
}

}  // namespace
}  // namespace higgs_rt::testing
