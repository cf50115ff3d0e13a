#include "api/config_check.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "core/check.h"

namespace higgs_rt {
namespace {

void check_range(const char* field, std::int64_t value, std::int64_t low, std::int64_t high) {
  check(value >= low && value <= high, field, "expected ", low, "..", high, ", got ", value);
}

bool is_name(const std::string& name) {
  constexpr std::size_t kLongest = 64;
  const auto plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  return !name.empty() && name.size() <= kLongest && plain(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; });
}

void check_adapters(const std::vector<NamedAdapter>& adapters) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const auto& [name, directory] = adapters[i];
    check(is_name(name), "adapters", "name of adapter ", i,
          ": expected 1..64 letters, digits and . _ -, the first a letter or digit, got \"", name,
          "\"");
    check(names.insert(name).second, "adapters", "expected each name once, got ", name, " twice");
    check(!directory.empty(), "adapters", "expected a directory for ", name, ", got an empty path");
  }
}

}  // namespace

void validate(const RuntimeConfig& config) {
  constexpr std::int32_t kLarge = 1 << 24;
  check(!config.model_dir.empty(), "model_dir",
        "expected a checkpoint directory, got an empty path");
  check(config.backend == "native" || config.backend == "tensorrt", "backend",
        "expected native or tensorrt, got ", config.backend);
  check_range("num_threads", config.num_threads, 0, kMaxThreads);
  check_range("max_batch", config.max_batch, 1, kMaxBatch);
  check_range("max_queue", config.max_queue, 1, kMaxQueue);
  if (config.max_step_tokens != 0) {
    check_range("max_step_tokens", config.max_step_tokens, std::int64_t{config.max_batch} + 1,
                kMaxStepTokens);
  }
  check_range("max_sequence", config.max_sequence, 2, kLarge);
  check_range("block_tokens", config.block_tokens, 1, config.max_sequence);
  check_range("num_blocks", config.num_blocks, 0, kLarge);
  check(config.gpu_memory_fraction > 0 && config.gpu_memory_fraction <= 1, "gpu_memory_fraction",
        "expected a number in (0, 1], got ", config.gpu_memory_fraction);
  check_range("max_buffered_chunks", config.max_buffered_chunks, 1, kMaxBufferedChunks);
  check(config.prefix_cache >= 0 && config.prefix_cache <= 1, "prefix_cache",
        "expected a share of 0..1, got ", config.prefix_cache);
  check_range("max_held_steps", config.max_held_steps, -1, kLarge);
  check_adapters(config.adapters);
}

RuntimeConfig with_defaults(RuntimeConfig config) {
  constexpr std::int32_t kHeldStepsOnGpu = 8;
  if (config.max_held_steps == -1) {
    config.max_held_steps = config.device == "cpu" ? 0 : kHeldStepsOnGpu;
  }
  if (config.max_step_tokens != 0) return config;
  // On a GPU 33 x 128 rows: many prompts of a burst in one step, in tiles of 128 rows that come out
  // even on 132 multiprocessors, and less than the 40 ms that a column lasts (H200, 3B model).
  config.max_step_tokens = config.device == "cpu" ? std::max(256, config.max_batch + 1)
                                                  : std::max(33 * 128, 2 * config.max_batch);
  return config;
}

void validate_output(const Request& request, const ModelInfo& info) {
  check(request.output == OutputKind::kWaveform || request.output == OutputKind::kFrames, "output",
        "expected waveform (0) or frames (1), got ", static_cast<std::int32_t>(request.output));
  check(request.output == OutputKind::kFrames || info.has_codec, "output",
        "expected frames, because the runtime was loaded with codec_dir \"none\", got waveform");
  if (!request.stream) return;
  check_range("first_chunk_frames", request.first_chunk_frames, 1, kMaxChunkFrames);
  check_range("max_chunk_frames", request.max_chunk_frames, request.first_chunk_frames,
              kMaxChunkFrames);
}

void validate_axes(const std::vector<PromptSegment>& prompt, const ModelInfo& info) {
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i].model_axis == 0) continue;
    const bool audio = prompt[i].kind == PromptSegment::Kind::kAudio;
    const std::int32_t expected = audio ? info.num_codebooks : info.hidden_size;
    check(prompt[i].model_axis == expected, "submit", "prompt[", i, "]: expected ",
          audio ? "codes [num_codebooks " : "rows [n, hidden_size ", expected,
          audio ? ", num_frames]" : "]", ", got ", prompt[i].model_axis, " on that axis");
  }
}

}  // namespace higgs_rt
