// Which of the algorithms that cuBLASLt proposes is the fastest, for the products of the 3B model:
// of those for a number of rows and for numbers not far from it.
#include <cublasLt.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <vector>

#include "bench/cuda_linear_bench.h"
#include "core/check.h"
#include "core/cuda/cuda_device.h"
#include "ops/cuda/cublas_lt.h"

namespace higgs_rt::bench {

namespace {

constexpr int kRanksTried = 8;               // of each number of rows
constexpr double kLess = 0.75, kMore = 1.6;  // of those rows
constexpr double kGain = 0.985;              // of the best time so far: less is noise
constexpr std::int64_t kCopies = 6;          // of a weight: more than the L2 cache holds

struct Shape3b {
  const char* name;
  std::int64_t outputs, inputs;
  bool adds;  // to fp32; the head writes fp32, the others bf16
};
constexpr Shape3b kShapes[] = {{"qkv", 5120, 3072, false},
                               {"o", 3072, 3072, true},
                               {"gate, up", 16384, 3072, false},
                               {"down", 3072, 8192, true},
                               {"head", 8208, 3072, false}};

class RankBench {
 public:
  explicit RankBench(Device& device) : device_(device), cublas_(as_cuda(device)) {
    const std::int64_t most = CublasLt::bounds().back();
    x_ = random({most, 8192});
    out_ = Tensor(device, DType::kF32, {most, 8208});  // or bf16 of twice the width
    for (const Shape3b& shape : kShapes) {
      std::vector<Tensor>& copies = weights_.emplace_back();
      for (std::int64_t i = 0; i < kCopies; ++i) {
        copies.push_back(random({shape.outputs, shape.inputs}));
      }
    }
  }

  // Best microseconds of one product; negative when there is no such algorithm.
  double time(std::size_t index, std::int64_t rows, const CublasLt::Proposal& proposal) {
    const Shape3b& shape = kShapes[index];
    const bool wide = shape.adds || shape.outputs == 8208;
    const TensorView x{x_.view().data, DType::kBF16, {rows, shape.inputs}};
    const TensorView out{
        out_.view().data, wide ? DType::kF32 : DType::kBF16, {rows, shape.outputs}};
    if (!cublas_.force(proposal, {rows, shape.outputs, shape.inputs, out.dtype, shape.adds})) {
      return -1;
    }
    const auto all = [&] {
      for (const Tensor& weight : weights_[index]) cublas_.product(x, weight, out, shape.adds);
    };
    all();
    device_.synchronize();
    const std::unique_ptr<DeviceGraph> graph = device_.capture(all);
    const std::unique_ptr<DeviceTimer> timer = device_.make_timer();
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
      timer->start();
      graph->launch();
      timer->stop();
      device_.synchronize();
      best = std::min(best, timer->collect());
    }
    return 1e6 * best / static_cast<double>(kCopies);
  }

 private:
  Tensor random(Shape shape) {
    std::vector<BF16> numbers(static_cast<std::size_t>(num_elements(shape)));
    std::uint32_t state = 12345;
    for (BF16& number : numbers) {
      state = state * 1664525U + 1013904223U;
      number = to_bf16((static_cast<float>(state >> 8) / (1 << 23) - 1) / 64);
    }
    Tensor tensor(device_, DType::kBF16, std::move(shape));
    device_.copy_from_host(tensor.view().data, numbers.data(), tensor.view().bytes());
    device_.synchronize();
    return tensor;
  }

  Device& device_;
  CublasLt cublas_;
  Tensor x_, out_;
  std::vector<std::vector<Tensor>> weights_;
};

struct Choice {
  CublasLt::Proposal proposal;
  double time;  // microseconds
};
// `first` or what is faster.
Choice fastest(RankBench& bench, std::size_t shape, std::int64_t rows, Choice first) {
  for (const std::int64_t other : CublasLt::bounds()) {
    const double ratio = static_cast<double>(other) / static_cast<double>(rows);
    if (ratio < kLess || ratio > kMore) continue;
    for (int rank = 0; rank < kRanksTried; ++rank) {
      const double time = bench.time(shape, rows, {other, rank});
      if (time >= 0 && (first.time < 0 || time < first.time * kGain)) first = {{other, rank}, time};
    }
  }
  return first;
}

}  // namespace

void bench_cublas_ranks(const Report& report) {
  if (!report.wants("cublas ranks")) return;
  const std::unique_ptr<Device> device = make_device(report.options().device);
  RankBench bench(*device);
  std::vector<std::string> lines;
  for (std::size_t s = 0; s < std::size(kShapes); ++s) {
    for (const std::int64_t rows : CublasLt::bounds()) {
      const CublasLt::Proposal own{rows, 0};
      const double first = bench.time(s, rows, own);  // microseconds
      const Choice choice = fastest(bench, s, rows, {own, first});
      char line[128];
      std::snprintf(
          line, sizeof line, "    {%lld, %lld, %lld, {%lld, %d}},  // %.1f us, the first %.1f",
          static_cast<long long>(kShapes[s].outputs), static_cast<long long>(kShapes[s].inputs),
          static_cast<long long>(rows), static_cast<long long>(choice.proposal.rows),
          choice.proposal.rank, choice.time, first);
      std::printf("%-8s %s\n", kShapes[s].name, line);
      std::fflush(stdout);
      lines.emplace_back(line);
    }
  }
  if (report.options().json.empty()) return;
  std::ofstream file(report.options().json);
  file << "// Made by higgs_kernel_bench --device cuda --only \"cublas ranks\" --json THIS_FILE on "
       << device->name() << ".\nconstexpr std::size_t kRanksVersion = " << cublasLtGetVersion()
       << ";\nconstexpr CublasRank kRanks[] = {\n";
  for (const std::string& line : lines) file << line << '\n';
  file << "};\n";
  check(file.good(), "--json", "expected a file that can be written, got ", report.options().json);
}

}  // namespace higgs_rt::bench
