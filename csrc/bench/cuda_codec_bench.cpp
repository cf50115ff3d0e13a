#include "bench/cuda_codec_bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "bench/random_checkpoint.h"
#include "model/codec_decoder.h"

namespace higgs_rt::bench {

namespace {

constexpr double kFlopsPerFrame = 2 * 271.7e6;  // specification 8.1, without any context
constexpr double kFrameSeconds = 0.04;

class Windows {
 public:
  Windows(CodecDecoder& decoder, std::int32_t items, std::int32_t frames)
      : decoder_(decoder), frames_(frames), codes_(static_cast<std::size_t>(items)) {
    const CodecSpec& spec = decoder.spec();
    const std::int32_t window = frames + 2 * spec.context_frames;
    std::mt19937 random(1);
    for (auto& codes : codes_) {
      codes.resize(static_cast<std::size_t>(spec.num_codebooks * window));
      for (auto& code : codes) code = static_cast<std::int32_t>(random() % 1024);
    }
    pcm_.resize(codes_.size() * static_cast<std::size_t>(frames * spec.samples_per_frame));
    const std::size_t samples = pcm_.size() / codes_.size();
    for (std::size_t i = 0; i < codes_.size(); ++i) {
      jobs_.push_back({codes_[i], window, spec.context_frames, spec.context_frames + frames,
                       std::span(pcm_).subspan(i * samples, samples)});
    }
  }

  void decode() {
    const auto limit = static_cast<std::size_t>(decoder_.batch_jobs(frames_));
    for (std::size_t i = 0; i < jobs_.size(); i += limit) {
      decoder_.start(std::span(jobs_).subspan(i, std::min(limit, jobs_.size() - i)));
      decoder_.finish();
    }
  }

 private:
  CodecDecoder& decoder_;
  std::int32_t frames_;
  std::vector<std::vector<std::int32_t>> codes_;
  std::vector<float> pcm_;
  std::vector<CodecDecoder::Job> jobs_;
};

// Median seconds of one decode, copies and host work included.
double measure_seconds(Windows& windows) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 3; ++i) windows.decode();
  std::vector<double> times;
  const auto begin = Clock::now();
  while (times.size() < 9 || Clock::now() - begin < std::chrono::milliseconds(300)) {
    const auto start = Clock::now();
    windows.decode();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

void bench_cuda_codec(const Report& report) {
  std::vector<std::pair<std::int32_t, std::int32_t>> groups;
  for (const std::int32_t frames : {8, 16, 32, 64}) {
    for (const std::int32_t items : {1, 4, 16, 64, 256}) {
      const std::string name = "codec " + std::to_string(items) + "x" + std::to_string(frames);
      if (report.wants(name)) groups.push_back({items, frames});
    }
  }
  if (groups.empty()) return;
  const auto directory = std::filesystem::temp_directory_path() /
                         ("higgs_rt_codec_bench_" + std::to_string(::getpid()));
  write_random_codec(directory.string(), released_codec_shape(), 1);
  const std::unique_ptr<Device> device = make_device(report.options().device);
  const std::unique_ptr<Ops> ops = make_cuda_ops(*device);
  const auto decoder = load_codec_decoder(directory.string(), *ops);
  std::filesystem::remove_all(directory);
  std::printf("\ncodec on %s, released shape\n%8s %8s %12s %14s %10s\n", device->name().c_str(),
              "windows", "frames", "ms", "audio s per s", "TFLOP/s");
  for (const auto& [items, frames] : groups) {
    Windows windows(*decoder, items, frames);
    const double seconds = measure_seconds(windows);
    const double made = static_cast<double>(items * frames);
    std::printf("%8d %8d %12.3f %14.0f %10.1f\n", items, frames, seconds * 1e3,
                made * kFrameSeconds / seconds, made * kFlopsPerFrame / seconds * 1e-12);
  }
}

}  // namespace higgs_rt::bench
