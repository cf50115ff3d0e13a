#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "bench/cuda_decoder_bench.h"
#include "bench/report.h"
#include "sampler/sampler.h"

namespace higgs_rt::bench {

namespace {

constexpr std::int32_t kCodebooks = 8, kVocab = 1026, kMaxRows = 256;
constexpr int kSteps = 16, kReplays = 10;
constexpr double kSeconds = 0.1;

// Peaked as a model's are; EOS never comes, or rows would end and cost nothing.
std::vector<float> random_logits(std::int32_t rows) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(static_cast<std::size_t>(rows) * kCodebooks * kVocab);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const bool eos = i % kVocab == kVocab - 1;
    logits[i] = eos ? -1e4f : normal(generator);
  }
  return logits;
}

}  // namespace

void bench_cuda_sampler(const std::string& name) {
  const auto device = make_device(name);
  const std::vector<float> host = random_logits(kMaxRows * 2);
  const Tensor logits(*device, DType::kF32, {2, kMaxRows * kCodebooks * kVocab});
  device->copy_from_host(logits.view().data, host.data(), logits.view().bytes());
  std::vector<std::int32_t> indices(kMaxRows);
  std::iota(indices.begin(), indices.end(), 0);
  const Tensor rows(*device, DType::kI32, {kMaxRows});
  device->copy_from_host(rows.view().data, indices.data(), rows.view().bytes());
  const auto sampler = make_sampler({kMaxRows, kCodebooks, kVocab}, *device);
  SamplingParams params;
  params.temperature = 0.7f;
  params.top_k = 50;
  params.top_p = 0.95f;
  for (std::int32_t row = 0; row < kMaxRows; ++row) {
    params.seed = static_cast<std::uint64_t>(row);
    sampler->open_row(row, params, {});
  }
  std::printf("\nsampler, 8 codebooks of 1026 ids\n%6s %9s\n", "rows", "us");
  for (const std::int32_t count : {1, 16, 64, 256}) {
    const auto steps = [&] {
      for (int i = 0; i < kSteps; ++i) {
        sampler->enqueue(logits.view().slice(i % 2, 1).as<float>(), rows.as<std::int32_t>(), count);
      }
    };
    steps();
    const auto graph = device->capture(steps);
    const Timing timing = measure(kSeconds, [&] {
      for (int i = 0; i < kReplays; ++i) graph->launch();
      device->synchronize();
    });
    std::printf("%6d %9.2f\n", count, timing.median / kReplays / kSteps);
    std::fflush(stdout);
  }
}

}  // namespace higgs_rt::bench
