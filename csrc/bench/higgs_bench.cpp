// Benchmark of the whole runtime: ms a column, seconds of audio a second, first audio, underruns.
//   higgs_bench --shape demo --concurrency 1,4,8
//   higgs_bench --shape higgs-v2-3b --device cuda --concurrency 1,4,16,64,256 --json result.json
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include "bench/bandwidth.h"
#include "bench/bench_options.h"
#include "bench/command_line.h"
#include "bench/figures.h"
#include "bench/gpu.h"
#include "bench/gpu_trace.h"
#include "bench/load.h"
#include "bench/random_checkpoint.h"
#include "bench/scratch_folder.h"
#include "bench/trace_run.h"
#include "core/check.h"
#include "core/device.h"
#include "model/config.h"

namespace higgs_rt::bench {
namespace {

void write_model(const Options& options, const std::string& path) {
  const bool released = options.shape == "higgs-v2-3b";
  RandomLmShape shape = released ? released_lm_shape() : demo_lm_shape();
  shape.endless = true;
  write_random_lm(path, shape, options.dtype == "bf16" ? DType::kBF16 : DType::kF32, 1);
  write_random_codec(path + "/codec", released ? released_codec_shape() : demo_codec_shape(), 2);
}

// Where the model is: --model, --keep, or a random one in a folder of its own.
struct Model {
  std::string path;
  std::unique_ptr<ScratchFolder> scratch;
};

Model find_model(const Options& options) {
  if (!options.model.empty()) return {options.model, nullptr};
  if (!options.keep.empty()) {
    if (!std::filesystem::exists(options.keep + "/codec/model.safetensors")) {
      write_model(options, options.keep);
    }
    return {options.keep, nullptr};
  }
  auto scratch = std::make_unique<ScratchFolder>("higgs_bench", options.scratch);
  write_model(options, scratch->path());
  return {scratch->path(), std::move(scratch)};
}

RuntimeConfig runtime_config(const Options& options, const std::string& model) {
  RuntimeConfig config;
  config.model_dir = model;
  config.codec_dir = options.codec ? options.codec_dir : "none";
  config.device = options.device;
  config.num_threads = options.threads;
  config.max_batch = options.most_requests();
  config.max_queue = std::max(config.max_queue, options.rounds * config.max_batch);
  config.max_step_tokens = options.step_tokens;
  config.max_held_steps = options.held_steps;
  config.max_sequence = std::max(512, options.positions());
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

std::string milliseconds(double seconds) { return fixed(1e3 * seconds, 2) + " ms"; }

std::string p95(const std::vector<double>& seconds) {
  return seconds.empty() ? "-" : fixed(1e3 * quantile(seconds, 0.95), 1) + " ms";
}

void print_header(bool codec) {
  std::printf("%8s %6s | %10s %10s %9s %9s %7s %6s", "requests", "frames", "column p50", "p99",
              "audio-s/s", "steady", "weights", "host");
  if (codec) {
    std::printf(" | %9s %9s %7s %9s %9s %9s %9s %9s", "audio-s/s", "steady", "RTF", "first p50",
                "p95", "burst p95", "later p95", "underruns");
  }
  std::printf("\n");
}

void print(const Result& result, bool codec, double step_bytes, double bandwidth) {
  const Measured& lm = result.columns;
  const double p50 = quantile(lm.column_seconds, 0.5);
  std::printf("%8d %6d | %10s %10s %9.1f %9s %6.0f%%", lm.concurrency, lm.frames,
              milliseconds(p50).c_str(), milliseconds(quantile(lm.column_seconds, 0.99)).c_str(),
              lm.audio_seconds / lm.wall_seconds, steady(lm).c_str(),
              100 * step_bytes / p50 / bandwidth);
  const double host = host_share(lm);
  host < 0 ? std::printf("%7s", "-") : std::printf("%6.1f%%", 100 * host);
  if (codec) {
    const Measured& s = result.speech;
    std::printf(" | %9.1f %9s %7s %6.0f ms %6.0f ms %9s %9s %9lld",
                s.audio_seconds / s.wall_seconds, steady(s).c_str(), real_time_factor(s).c_str(),
                1e3 * quantile(s.first_audio, 0.5), 1e3 * quantile(s.first_audio, 0.95),
                p95(burst(s)).c_str(), p95(later(s)).c_str(), static_cast<long long>(s.underruns));
  }
  std::printf("\n");
  // Where the device's time went: steps that were one graph, and steps with prompt rows.
  for (const Measured* m : {&lm, &result.speech}) {
    if (m->graph_steps == 0) continue;
    const std::int64_t others = m->steps - m->graph_steps;
    std::printf("%15s | %lld graphs of %.1f rows, %s, %lld other steps of %s\n",
                m == &lm ? "" : "with codec", static_cast<long long>(m->graph_steps),
                static_cast<double>(m->graph_rows) / static_cast<double>(m->graph_steps),
                milliseconds(m->graph_seconds / static_cast<double>(m->graph_steps)).c_str(),
                static_cast<long long>(others),
                milliseconds((m->device_seconds - m->graph_seconds) /
                             static_cast<double>(std::max<std::int64_t>(others, 1)))
                    .c_str());
  }
  std::fflush(stdout);
}

double peak_gib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1024.0 * 1024.0);
}

Load base_load(const Options& options, std::int32_t frames) {
  return {.arrival_rate = options.arrival_rate,
          .prompt_tokens = options.prompt_tokens,
          .frames = frames,
          .endless = !options.shape.empty()};
}

void warm_up(Runtime& runtime, const Options& options) {
  for (const std::int32_t concurrency : options.concurrency) {
    Load load = base_load(options, std::min(options.most_frames(), 16));
    load.arrival_rate = 0;
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
  if (!options.trace.empty()) start_gpu_trace(options.whole_graphs);
  make_device(options.device);  // one that is not there is told before a model is written
  Model model = find_model(options);
  const auto bandwidth = [&] {
    if (options.on_gpu()) return measure_copy_bandwidth(options.ordinal());
    ThreadPool pool(options.threads);
    return measure_read_bandwidth(pool);
  }();
  const auto start = std::chrono::steady_clock::now();
  const auto runtime = Runtime::load(runtime_config(options, model.path));
  const std::chrono::duration<double> load = std::chrono::steady_clock::now() - start;
  const ModelInfo& info = runtime->info();
  const double step_bytes = decode_step_bytes(read_model_config(model.path), info.weight_dtype);
  model.scratch.reset();  // its files are mapped: they stay until the runtime ends, however it ends
  std::printf("%s\n%.2f M parameters, %s, %s, %d threads; loaded in %.2f s\n", build_info().c_str(),
              static_cast<double>(info.num_parameters) / 1e6, info.weight_dtype.c_str(),
              info.device.c_str(), info.num_threads, load.count());
  std::printf("memory bandwidth (%s) %.1f GB/s; a decode step reads %.3f GB of weights\n",
              options.on_gpu() ? "copy, read + write" : "read", bandwidth / 1e9, step_bytes / 1e9);
  std::printf(
      "prompts of %d tokens, %d request(s) a client, %s; steady: while all clients are busy "
      "(--help)\n\n",
      options.prompt_tokens, options.rounds,
      options.arrival_rate > 0 ? "Poisson arrivals" : "closed");
  warm_up(*runtime, options);
  if (!options.trace.empty()) {
    run_traces(*runtime, options, base_load(options, options.most_frames()));
    return 0;
  }
  print_header(options.codec);
  std::vector<Result> results;
  for (const std::int32_t concurrency : options.concurrency) {
    for (const std::int32_t frames : options.frames) {
      Load request = base_load(options, frames);
      request.concurrency = concurrency;
      request.requests = concurrency * options.rounds;
      Result& result = results.emplace_back();
      request.waveform = false;
      result.columns = run_load(*runtime, request);
      request.waveform = true;
      if (options.codec) result.speech = run_load(*runtime, request);
      print(result, options.codec, step_bytes, bandwidth);
    }
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
       << ", \"rounds\": " << options.rounds << ", \"arrival_rate\": " << options.arrival_rate;
  write_json(options, info, head.str(), results);
  return 0;
}

}  // namespace
}  // namespace higgs_rt::bench

int main(int argc, char** argv) {
  using namespace higgs_rt::bench;
  return run_main(argc, argv, kUsage, 1, [&] { return run(parse(argc, argv)); });
}
