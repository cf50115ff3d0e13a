// Benchmark of the whole runtime: ms a column, seconds of audio a second, first audio, underruns.
//   higgs_bench --shape demo --concurrency 1,4,8
//   higgs_bench --shape higgs-v2-3b --device cuda --concurrency 1,4,16,64,256 --json result.json
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>

#include "bench/bandwidth.h"
#include "bench/gpu.h"
#include "bench/load.h"
#include "bench/random_checkpoint.h"
#include "core/check.h"
#include "model/config.h"

namespace higgs_rt::bench {
namespace {

constexpr const char* kUsage =
    R"(usage: higgs_bench (--model DIR | --shape higgs-v2-3b|demo) [options]
  --codec-dir DIR       codec of --model (default: DIR/codec)
  --no-codec            language model and sampler alone
  --device cpu|cuda:N   (default cpu)
  --concurrency LIST    requests at once, e.g. 1,4,8 (default 1,8)
  --arrivals closed|poisson:RATE
                        closed (default): every client sends its next request when its last one has
                        ended. poisson: RATE requests a second, whatever runs
  --rounds N            requests of each client, or of each of LIST with poisson (default 1)
  --prompt-tokens N     (default 64)
  --frames N            of each request, 25 a second; with several requests a quarter more or less
                        (default 100)
  --threads N           CPU threads (default all)
  --dtype bf16|f32      of the random weights of --shape (default bf16)
  --scratch DIR         where --shape writes its model (default the temporary directory)
  --json FILE           also write the figures there
)";

struct Options {
  std::string model, shape, codec_dir, device = "cpu", dtype = "bf16", scratch, json;
  std::vector<std::int32_t> concurrency = {1, 8};
  std::int32_t prompt_tokens = 64, frames = 100, threads = 0, rounds = 1;
  double arrival_rate = 0;  // requests a second; 0: closed
  bool codec = true;

  bool on_gpu() const { return device.starts_with("cuda"); }
  int ordinal() const { return device.size() > 5 ? std::atoi(device.c_str() + 5) : 0; }
};

std::int32_t to_int(const std::string& text, const std::string& option) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  check(!text.empty() && *end == '\0' && value >= 0 && value <= 1 << 24, option.c_str(),
        "expected a number in 0..2^24, got ", text);
  return static_cast<std::int32_t>(value);
}

std::vector<std::int32_t> to_list(const std::string& text, const std::string& option) {
  std::vector<std::int32_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) out.push_back(to_int(part, option));
  check(!out.empty() && *std::min_element(out.begin(), out.end()) >= 1, option.c_str(),
        "expected numbers above 0, e.g. 1,4,8, got ", text);
  return out;
}

double to_rate(const std::string& text) {
  constexpr std::string_view kPoisson = "poisson:";
  if (text == "closed") return 0;
  char* end = nullptr;
  const bool poisson = text.starts_with(kPoisson);
  const double rate = poisson ? std::strtod(text.c_str() + kPoisson.size(), &end) : 0;
  check(poisson && *end == '\0' && rate > 0, "--arrivals",
        "expected closed or poisson:RATE with a rate above 0, got ", text);
  return rate;
}

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::string*> texts = {
      {"--model", &options.model},   {"--shape", &options.shape},
      {"--device", &options.device}, {"--codec-dir", &options.codec_dir},
      {"--dtype", &options.dtype},   {"--scratch", &options.scratch},
      {"--json", &options.json}};
  const std::map<std::string, std::int32_t*> numbers = {{"--prompt-tokens", &options.prompt_tokens},
                                                        {"--frames", &options.frames},
                                                        {"--rounds", &options.rounds},
                                                        {"--threads", &options.threads}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--codec" || name == "--no-codec") {
      options.codec = name == "--codec";
      continue;
    }
    check(i + 1 < argc, name.c_str(), "expected a value, got the end of the line");
    const std::string value = argv[++i];
    if (texts.contains(name)) {
      *texts.at(name) = value;
    } else if (numbers.contains(name)) {
      *numbers.at(name) = to_int(value, name);
    } else if (name == "--concurrency") {
      options.concurrency = to_list(value, name);
    } else if (name == "--arrivals") {
      options.arrival_rate = to_rate(value);
    } else {
      check(false, name.c_str(), "expected an option of higgs_bench, got an unknown one");
    }
  }
  check(options.model.empty() != options.shape.empty(), "higgs_bench",
        "expected either --model or --shape, got ", options.model.empty() ? "neither" : "both");
  check(options.rounds >= 1, "--rounds", "expected at least 1, got ", options.rounds);
  check(options.dtype == "bf16" || options.dtype == "f32", "--dtype", "expected bf16 or f32, got ",
        options.dtype);
  return options;
}

// A random model of --shape, removed at the end.
class ScratchModel {
 public:
  explicit ScratchModel(const Options& options) {
    const bool released = options.shape == "higgs-v2-3b";
    check(released || options.shape == "demo", "--shape", "expected higgs-v2-3b or demo, got ",
          options.shape);
    const std::filesystem::path parent = options.scratch.empty()
                                             ? std::filesystem::temp_directory_path()
                                             : std::filesystem::path(options.scratch);
    path_ = (parent / ("higgs_bench_" + std::to_string(::getpid()))).string();
    RandomLmShape shape = released ? released_lm_shape() : demo_lm_shape();
    shape.endless = true;
    write_random_lm(path_, shape, options.dtype == "bf16" ? DType::kBF16 : DType::kF32, 1);
    write_random_codec(path_ + "/codec", released ? released_codec_shape() : demo_codec_shape(), 2);
  }
  ~ScratchModel() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchModel(const ScratchModel&) = delete;
  ScratchModel& operator=(const ScratchModel&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

RuntimeConfig runtime_config(const Options& options, const std::string& model) {
  RuntimeConfig config;
  config.model_dir = model;
  config.codec_dir = options.codec ? options.codec_dir : "none";
  config.device = options.device;
  config.num_threads = options.threads;
  config.max_batch = *std::max_element(options.concurrency.begin(), options.concurrency.end());
  config.max_queue = std::max(config.max_queue, options.rounds * config.max_batch);
  config.max_step_tokens = std::max(options.on_gpu() ? 2048 : 256, 2 * config.max_batch);
  config.max_sequence = std::max(512, options.prompt_tokens + options.frames * 5 / 4 + 64);
  config.num_blocks = (config.max_sequence / config.block_tokens + 1) * config.max_batch;
  return config;
}

// Bytes of weights that a step of decode columns reads: attention, audio norms and FFN of every
// layer, and the audio head (specification 2.1).
double decode_step_bytes(const ModelConfig& model, const std::string& dtype) {
  const double h = model.hidden_size;
  const double q = static_cast<double>(model.num_heads) * model.head_dim;
  const double kv = static_cast<double>(model.num_kv_heads) * model.head_dim;
  const double layer = 2 * h * q + 2 * h * kv + 3 * h * model.audio_ffn + 2 * h;
  const double head = static_cast<double>(model.num_codebooks) * model.codebook_vocab * h;
  return (model.num_layers * layer + head) * (dtype == "f32" ? 4 : 2);
}

struct Result {
  Measured columns;  // the language model and sampler alone
  Measured speech;   // with the codec
};

void print_header(bool codec) {
  std::printf("%8s %10s %10s %10s %9s %6s", "requests", "column p50", "column p99", "audio-s/s",
              "weights", "host");
  if (codec) {
    std::printf(" | %10s %7s %10s %10s %9s", "audio-s/s", "RTF", "first p50", "first p95",
                "underruns");
  }
  std::printf("\n");
}

// Share of a step in which the device had nothing to do; negative: not measured.
double host_share(const Measured& m) {
  return m.device_seconds > 0 ? 1 - m.device_seconds / m.wall_seconds : -1;
}

void print(const Result& result, bool codec, double step_bytes, double bandwidth) {
  const Measured& lm = result.columns;
  const double p50 = quantile(lm.column_seconds, 0.5);
  std::printf("%8d %7.3f ms %7.3f ms %10.2f %8.0f%%", lm.concurrency, 1e3 * p50,
              1e3 * quantile(lm.column_seconds, 0.99), lm.audio_seconds / lm.wall_seconds,
              100 * step_bytes / p50 / bandwidth);
  const double host = host_share(lm);
  host < 0 ? std::printf("%7s", "-") : std::printf("%6.1f%%", 100 * host);
  if (codec) {
    const Measured& s = result.speech;
    std::printf(" | %10.2f %7.3f %7.0f ms %7.0f ms %9lld", s.audio_seconds / s.wall_seconds,
                s.wall_seconds * s.concurrency / s.audio_seconds,
                1e3 * quantile(s.first_audio, 0.5), 1e3 * quantile(s.first_audio, 0.95),
                static_cast<long long>(s.underruns));
  }
  std::printf("\n");
  std::fflush(stdout);
}

std::string to_json(const Measured& m) {
  std::ostringstream out;
  out << "{\"concurrency\": " << m.concurrency << ", \"requests\": " << m.requests
      << ", \"wall_seconds\": " << m.wall_seconds << ", \"audio_seconds\": " << m.audio_seconds
      << ", \"column_p50\": " << quantile(m.column_seconds, 0.5)
      << ", \"column_p99\": " << quantile(m.column_seconds, 0.99)
      << ", \"first_audio_p50\": " << quantile(m.first_audio, 0.5)
      << ", \"first_audio_p95\": " << quantile(m.first_audio, 0.95)
      << ", \"underruns\": " << m.underruns << ", \"mean_step\": " << m.step_seconds
      << ", \"steps\": " << m.steps << ", \"host_share\": " << host_share(m) << "}";
  return out.str();
}

double peak_gib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1024.0 * 1024.0);
}

Load base_load(const Options& options) {
  return {.arrival_rate = options.arrival_rate,
          .prompt_tokens = options.prompt_tokens,
          .frames = options.frames,
          .endless = !options.shape.empty()};
}

void warm_up(Runtime& runtime, const Options& options) {
  for (const std::int32_t concurrency : options.concurrency) {
    Load load = base_load(options);
    load.arrival_rate = 0;
    load.frames = std::min(options.frames, 16);
    load.concurrency = load.requests = concurrency;
    for (const bool waveform : {false, true}) {
      load.waveform = waveform;
      if (options.codec || !waveform) run_load(runtime, load);
    }
  }
}

void write_json(const Options& options, const ModelInfo& info, const std::string& head,
                const std::vector<Result>& results) {
  if (options.json.empty()) return;
  std::ofstream file(options.json);
  file << "{\"build\": \"" << build_info() << "\", \"device\": \"" << info.device
       << "\", \"threads\": " << info.num_threads << ", " << head << ", \"runs\": [";
  const char* separator = "\n  ";
  for (const Result& result : results) {
    file << separator << "{\"columns\": " << to_json(result.columns);
    if (options.codec) file << ", \"speech\": " << to_json(result.speech);
    file << "}";
    separator = ",\n  ";
  }
  file << "]}\n";
  file.close();
  check(file.good(), "--json", "expected a file that can be written, got ", options.json);
}

int run(const Options& options) {
  std::unique_ptr<ScratchModel> scratch;
  if (!options.shape.empty()) scratch = std::make_unique<ScratchModel>(options);
  const std::string model = scratch ? scratch->path() : options.model;
  const auto bandwidth = [&] {
    if (options.on_gpu()) return measure_copy_bandwidth(options.ordinal());
    ThreadPool pool(options.threads);
    return measure_read_bandwidth(pool);
  }();
  const auto start = std::chrono::steady_clock::now();
  const auto runtime = Runtime::load(runtime_config(options, model));
  const std::chrono::duration<double> load = std::chrono::steady_clock::now() - start;
  const ModelInfo& info = runtime->info();
  const double step_bytes = decode_step_bytes(read_model_config(model), info.weight_dtype);
  std::printf("%s\n%.2f M parameters, %s, %s, %d threads; loaded in %.2f s\n", build_info().c_str(),
              static_cast<double>(info.num_parameters) / 1e6, info.weight_dtype.c_str(),
              info.device.c_str(), info.num_threads, load.count());
  std::printf("memory bandwidth (%s) %.1f GB/s; a decode step reads %.3f GB of weights\n",
              options.on_gpu() ? "copy, read + write" : "read", bandwidth / 1e9, step_bytes / 1e9);
  std::printf("prompts of %d tokens, %d frames, %d request(s) a client, %s\n\n",
              options.prompt_tokens, options.frames, options.rounds,
              options.arrival_rate > 0 ? "Poisson arrivals" : "closed");
  warm_up(*runtime, options);
  print_header(options.codec);
  std::vector<Result> results;
  for (const std::int32_t concurrency : options.concurrency) {
    Load request = base_load(options);
    request.concurrency = concurrency;
    request.requests = concurrency * options.rounds;
    Result& result = results.emplace_back();
    request.waveform = false;
    result.columns = run_load(*runtime, request);
    request.waveform = true;
    if (options.codec) result.speech = run_load(*runtime, request);
    print(result, options.codec, step_bytes, bandwidth);
  }
  const double gpu_gib =
      options.on_gpu() ? static_cast<double>(gpu_memory_used(options.ordinal())) / (1 << 30) : 0;
  std::printf("\npeak resident memory %.2f GiB, mapped weights included", peak_gib());
  if (options.on_gpu()) std::printf("; GPU memory in use %.2f GiB", gpu_gib);
  std::printf("\n");
  std::ostringstream head;
  head << "\"bandwidth\": " << bandwidth << ", \"step_bytes\": " << step_bytes
       << ", \"load_seconds\": " << load.count() << ", \"peak_gib\": " << peak_gib()
       << ", \"gpu_gib\": " << gpu_gib << ", \"prompt_tokens\": " << options.prompt_tokens
       << ", \"frames\": " << options.frames << ", \"rounds\": " << options.rounds
       << ", \"arrival_rate\": " << options.arrival_rate;
  write_json(options, info, head.str(), results);
  return 0;
}

}  // namespace
}  // namespace higgs_rt::bench

int main(int argc, char** argv) {
  try {
    return higgs_rt::bench::run(higgs_rt::bench::parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n' << higgs_rt::bench::kUsage;
    return 1;
  }
}
