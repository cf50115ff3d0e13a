// What the benchmarks refuse before anything runs, and how they say it.
#include "bench/command_line.h"

#include <string>
#include <utility>
#include <vector>

#include "bench/bench_options.h"
#include "check.h"
#include "core/check.h"

namespace higgs_rt::bench {
namespace {

Options parse_all(std::vector<std::string> words) {
  words.insert(words.begin(), "higgs_bench");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return parse(static_cast<int>(argv.size()), argv.data());
}

std::string refusal(std::vector<std::string> words) {
  return testing::thrown([&] { parse_all(std::move(words)); });
}

std::string refused(const std::string& option, const std::string& value) {
  return refusal({"--shape", "demo", option, value});
}

TEST("higgs_bench reads its options") {
  const Options options =
      parse_all({"--shape", "higgs-v2-3b", "--device", "cuda:1", "--concurrency", "1,4096",
                 "--frames", "100,250", "--arrivals", "poisson:2.5", "--no-codec"});
  EXPECT_EQ(options.shape, "higgs-v2-3b");
  EXPECT_EQ(options.ordinal(), 1);
  EXPECT_EQ(options.most_requests(), 4096);
  EXPECT_EQ(options.positions(), 64 + 312 + 64);
  EXPECT_EQ(options.arrival_rate, 2.5);
  EXPECT(!options.codec && options.on_gpu());
}

TEST("higgs_bench refuses what cannot run, with option, value and limit") {
  EXPECT_EQ(refused("--prompt-tokens", "0"),
            "[--prompt-tokens] expected a whole number in 1..131072, got \"0\"");
  EXPECT_EQ(refused("--concurrency", "4,5000"),
            "[--concurrency] expected a whole number in 1..4096, got \"5000\"");
  EXPECT_EQ(refused("--concurrency", "4,"),
            "[--concurrency] expected numbers with commas between, e.g. 1,4,8, got \"4,\"");
  EXPECT_EQ(refused("--rounds", "1e3"),
            "[--rounds] expected a whole number in 1..16777216, got \"1e3\"");
  EXPECT_EQ(refusal({"--shape", "demo", "--rounds", "16777216", "--concurrency", "4096"}),
            "[--rounds] expected at most 1000000 requests in all, got 16777216 of each of 4096 "
            "clients");
  EXPECT_EQ(refused("--step-tokens", "5"),
            "[--step-tokens] expected more than the 8 requests of --concurrency, got 5");
  EXPECT_EQ(refused("--frames", "131072"),
            "[--frames] expected at most 131072 positions of a request (prompt tokens, a quarter "
            "more frames and 64), got 163968");
  EXPECT_EQ(refused("--arrivals", "poisson:-1"),
            "[--arrivals] expected a number above 0, got \"-1\"");
  EXPECT_EQ(refused("--json", "/no/such/folder/figures.json"),
            "[--json] expected a file that can be written, got \"/no/such/folder/figures.json\"");
  EXPECT_EQ(refused("--frame", "1"),
            "[--frame] expected an option of higgs_bench, got an unknown one");
  EXPECT_EQ(refusal({"--shape", "demo", "--rounds"}),
            "[--rounds] expected a value, got the end of the line");
  EXPECT_EQ(refused("--trace", "trace.json"), "[--trace] expected --device cuda, got cpu");
  EXPECT_EQ(refusal({"--shape", "2b"}), "[--shape] expected higgs-v2-3b or demo, got 2b");
}

TEST("a benchmark's --help is no error, and what it throws is its failure") {
  std::string program = "higgs_bench", help = "--help";
  char* argv[] = {program.data(), help.data()};
  bool ran = false;
  EXPECT_EQ(run_main(2, argv, "", 2, [&] { return ran = true; }), 0);
  EXPECT(!ran);
  EXPECT_EQ(run_main(1, argv, "", 2, [] { return 7; }), 7);
  EXPECT_EQ(run_main(1, argv, "", 2, []() -> int { fail(ErrorCode::kNotFound, "x", "y"); }), 2);
}

}  // namespace
}  // namespace higgs_rt::bench
