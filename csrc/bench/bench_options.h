// The command line of higgs_bench.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace higgs_rt::bench {

extern const char* const kUsage;

inline constexpr std::int32_t kMostPositions = 131072;  // of the released model

struct Options {
  std::string model, shape, codec_dir, device = "cpu", dtype = "bf16", scratch, keep, json, trace;
  std::vector<std::int32_t> concurrency = {1, 8};
  std::vector<std::int32_t> frames = {100};
  std::int32_t prompt_tokens = 64, threads = 0, rounds = 1, step_tokens = 0, held_steps = -1;
  double arrival_rate = 0;  // requests a second; 0: closed
  bool codec = true;
  bool whole_graphs = false;  // of --trace

  bool on_gpu() const { return device.starts_with("cuda"); }
  std::int32_t most_requests() const { return std::ranges::max(concurrency); }
  std::int32_t most_frames() const { return std::ranges::max(frames); }
  // Of the longest request, with a quarter more frames and the delay pattern.
  std::int32_t positions() const { return prompt_tokens + most_frames() * 5 / 4 + 64; }
  int ordinal() const { return device.size() > 5 ? std::atoi(device.c_str() + 5) : 0; }
};

// Throws kInvalidArgument that names the option.
Options parse(int argc, char** argv);

}  // namespace higgs_rt::bench
