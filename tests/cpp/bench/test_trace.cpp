// What the report says about traces whose answers are known.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "bench/trace_report.h"
#include "check.h"
#include "io/temporary_directory.h"

namespace higgs_rt::bench {
namespace {

using Kind = TraceRecord::Kind;

constexpr std::uint64_t kStep = 2'000'000;  // nanoseconds
constexpr std::uint32_t kStepThread = 7, kCodecThread = 8, kStream = 13;
constexpr int kSteps = 20;

// Steps of ten kernels of 190 us and 10 us of nothing behind each; the host launches step s + 1
// while step s runs when `ahead`, and waits for the end of step s.
TraceWindow steps_of(bool ahead) {
  TraceWindow window;
  window.streams = 4;
  window.begin = 10 * kStep;
  window.end = window.begin + kSteps * kStep;
  window.steps = window.graph_steps = kSteps;
  for (int s = -3; s <= kSteps + 3; ++s) {
    const std::uint64_t time = window.begin + static_cast<std::uint64_t>(s + 1) * kStep - kStep;
    const auto number = static_cast<std::uint32_t>(100 + s);
    const std::uint64_t launch = time - (ahead ? kStep / 2 : 8'000);
    window.records.push_back(
        {Kind::kCall, "cudaGraphLaunch", launch, launch + 5'000, kStepThread, number});
    const std::uint64_t wait = launch + 6'000;
    window.records.push_back({Kind::kCall, "cudaEventSynchronize", wait,
                              ahead ? time + 1'000 : time + kStep - 9'000, kStepThread,
                              number + 50});
    for (std::uint64_t k = 0; k < 10; ++k) {
      const std::uint64_t begin = time + k * 200'000;
      window.records.push_back({Kind::kKernel,
                                k % 2 != 0 ? "_ZN8higgs_rt4cuda6decodeIfEEvPKfi" : "c", begin,
                                begin + 190'000, kStream, number});
    }
  }
  window.records.push_back(
      {Kind::kCall, "cudaGraphLaunch", window.begin + 5, window.begin + 6, kCodecThread, 900});
  std::erase_if(window.records, [&](const TraceRecord& one) {
    return one.end <= window.begin - kStep || one.begin >= window.end + kStep;
  });
  std::sort(window.records.begin(), window.records.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return window;
}

TEST("a trace: busy share, gaps, launches a step") {
  const TraceSummary found = summarise(steps_of(true));
  EXPECT_EQ(found.step_thread, kStepThread);
  EXPECT(found.busy > 0.9499 && found.busy < 0.9501);
  EXPECT_EQ(found.timed_busy, 0.0);
  EXPECT(found.longest_idle > 9.99 && found.longest_idle < 10.01);
  EXPECT_EQ(found.launches, 1.0);
  EXPECT(!found.gaps.empty());
  EXPECT(std::all_of(found.gaps.begin(), found.gaps.end(),
                     [](double gap) { return gap > 9.99 && gap < 10.01; }));
}

TEST("a trace: waits that keep the GPU waiting are told from those that do not") {
  const TraceSummary ahead = summarise(steps_of(true));
  EXPECT_EQ(ahead.waits, kSteps);
  EXPECT_EQ(ahead.waits_ahead, ahead.waits);
  const TraceSummary behind = summarise(steps_of(false));
  EXPECT_EQ(behind.waits, kSteps);
  // The wait ends 1 us after the last kernel of the only graph that was launched.
  EXPECT_EQ(behind.waits_ahead, 0);
}

TEST("a trace: without graph launches it is refused") {
  TraceWindow window = steps_of(true);
  std::erase_if(window.records, [](const auto& one) { return one.kind == Kind::kCall; });
  EXPECT(testing::thrown([&] { summarise(window); }).find("[--trace]") == 0);
}

TEST("a trace: its file has every record, with readable names") {
  const TraceWindow window = steps_of(true);
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  write_trace(path, {window});
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::size_t events = 0;
  for (std::size_t at = 0; (at = text.str().find("\"ph\":\"X\"", at + 1)) != std::string::npos;) {
    ++events;
  }
  EXPECT_EQ(events, window.records.size());
  EXPECT(text.str().find("\"name\":\"decode<float>\"") != std::string::npos);
  EXPECT(testing::thrown([&] { write_trace("/nowhere/trace.json", {window}); }) != "");
}

}  // namespace
}  // namespace higgs_rt::bench
