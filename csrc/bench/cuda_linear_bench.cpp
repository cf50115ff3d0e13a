#include "bench/cuda_linear_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "core/cuda/cuda_device.h"
#include "ops/cuda/cublas_lt.h"

namespace higgs_rt::bench {

namespace {

constexpr std::int64_t kHidden = 3072, kHeads = 24, kKvHeads = 8, kDim = 128, kFfn = 8192;
constexpr std::int64_t kQkv = (kHeads + 2 * kKvHeads) * kDim, kHead = 8208;
constexpr std::int64_t kLayers = 28, kMaxRows = 256, kSlots = 4096, kPositions = 2048;
constexpr std::int64_t kRowCounts[] = {1, 2, 4, 8, 16, 17, 24, 32, 48, 64, 96, 128, 256};
constexpr int kReplays = 5;

enum Product { kAttentionInput, kAttentionOutput, kFfnInput, kFfnOutput, kLogits, kProducts };
constexpr const char* kNames[] = {"norm, qkv 5120x3072, rope, store", "o 3072x3072, add",
                                  "norm, gate|up 16384x3072, swiglu", "down 3072x8192, add",
                                  "gather, norm, head 8208x3072"};
constexpr std::int64_t kOutputs[] = {kQkv, kHidden, 2 * kFfn, kHidden, kHead};
constexpr std::int64_t kInputs[] = {kHidden, kHidden, kHidden, kFfn, kHidden};

double weight_bytes(int product) {
  return 2.0 * static_cast<double>(kOutputs[product] * kInputs[product]);
}

class LinearBench {
 public:
  explicit LinearBench(Device& device)
      : device_(device), ops_(make_cuda_ops(device)), cublas_(as_cuda(device)) {
    for (int p = 0; p < kProducts; ++p) {
      const std::int64_t copies = p == kLogits ? kLayers / 2 : kLayers;
      for (std::int64_t i = 0; i < copies; ++i) {
        weights_[p].push_back(random({kOutputs[p], kInputs[p]}, DType::kBF16));
      }
    }
    norm_ = random({kHidden}, DType::kBF16);
    rope_ = random({kPositions, kDim / 2, 2}, DType::kF32);
    hidden_ = random({kMaxRows, kHidden}, DType::kF32);
    wide_ = random({kMaxRows, 2 * kFfn}, DType::kBF16);
    normed_ = random({kMaxRows, kHidden}, DType::kBF16);
    q_ = random({kMaxRows, kHeads, kDim}, DType::kBF16);
    k_ = random({kMaxRows, kKvHeads, kDim}, DType::kBF16);
    v_ = random({kMaxRows, kKvHeads, kDim}, DType::kBF16);
    up_ = random({kMaxRows, kFfn}, DType::kBF16);
    k_cache_ = random({kSlots, kKvHeads, kDim}, DType::kBF16);
    v_cache_ = random({kSlots, kKvHeads, kDim}, DType::kBF16);
    logits_ = random({kMaxRows, kHead}, DType::kF32);
    std::vector<std::int32_t> indices(kMaxRows);
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int32_t>(i);
    index_ = Tensor(device_, DType::kI32, {kMaxRows});
    device_.copy_from_host(index_.view().data, indices.data(), index_.view().bytes());
    device_.synchronize();
  }

  // The product with what the decoder needs before and after it.
  void run(int product, std::int64_t rows, std::size_t copy) {
    const std::vector<Tensor>& all = weights_[product];
    const TensorView weight = all[copy % all.size()];
    const TensorView x = hidden_.view().first(rows), normed = normed_.view().first(rows);
    const TensorView activated{wide_.view().data, DType::kBF16, {rows, kFfn}};
    const TensorView index = index_.view().first(rows);
    if (product == kAttentionInput) {
      const std::int64_t q = kHeads * kDim, kv = kKvHeads * kDim;
      ops_->attention_input(
          x,
          {0, norm_, norm_, 1e-5f, weight.first(q), weight.slice(q, kv), weight.slice(q + kv, kv),
           index, index, rope_, normed, k_.view().first(rows), v_.view().first(rows)},
          q_.view().first(rows), k_cache_, v_cache_);
    } else if (product == kFfnInput) {
      ops_->ffn_input(x,
                      {norm_, 1e-5f, weight.first(kFfn), weight.slice(kFfn, kFfn), normed,
                       up_.view().first(rows)},
                      activated);
    } else if (product == kLogits) {
      ops_->head(x, {index, norm_, 1e-5f, weight, x, normed}, logits_.view().first(rows));
    } else {
      const TensorView q{q_.view().data, DType::kBF16, {rows, kHidden}};
      ops_->linear(product == kFfnOutput ? activated : q, weight, x, true);
    }
  }

  // The product alone, by cuBLASLt.
  void run_cublas(int product, std::int64_t rows, std::size_t copy) {
    const std::vector<Tensor>& all = weights_[product];
    const TensorView& weight = all[copy % all.size()];
    const bool add = product == kAttentionOutput || product == kFfnOutput;
    const TensorView x{wide_.view().data, DType::kBF16, {rows, kInputs[product]}};
    const bool wide = product == kAttentionInput || product == kFfnInput;
    const TensorView out =
        wide  ? TensorView{wide_.view().data, DType::kBF16, {rows, kOutputs[product]}}
        : add ? hidden_.view().first(rows)
              : logits_.view().first(rows);
    cublas_.product(wide ? normed_.view().first(rows) : x, weight, out, add);
  }

  // Median microseconds of `body`, run as a graph.
  double time(double seconds, const std::function<void()>& body) {
    body();
    device_.synchronize();
    const std::unique_ptr<DeviceGraph> graph = device_.capture(body);
    graph->launch();
    device_.synchronize();
    const Timing timing = measure(seconds, [&] {
      for (int i = 0; i < kReplays; ++i) graph->launch();
      device_.synchronize();
    });
    return timing.median / kReplays;
  }

 private:
  // Filled with one random piece again and again.
  Tensor random(Shape shape, DType dtype) {
    constexpr std::size_t kPiece = (std::size_t{8} << 20) - 24;
    if (piece_.empty()) {
      std::mt19937 generator(1);
      std::uniform_real_distribution<float> uniform(-1.0f / 64, 1.0f / 64);
      piece_.resize(kPiece / 4);
      for (float& value : piece_) value = uniform(generator);
      for (const float value : piece_) narrow_.push_back(to_bf16(value));
    }
    Tensor tensor(device_, dtype, std::move(shape));
    const void* from =
        dtype == DType::kF32 ? static_cast<const void*>(piece_.data()) : narrow_.data();
    const std::size_t piece = dtype == DType::kF32 ? kPiece : kPiece / 2;
    auto* to = static_cast<char*>(tensor.view().data);
    for (std::size_t done = 0; done < tensor.view().bytes(); done += piece) {
      device_.copy_from_host(to + done, from, std::min(piece, tensor.view().bytes() - done));
    }
    return tensor;
  }

  Device& device_;
  std::unique_ptr<Ops> ops_;
  CublasLt cublas_;
  std::vector<float> piece_;
  std::vector<BF16> narrow_;
  std::vector<Tensor> weights_[kProducts];
  Tensor norm_, rope_, hidden_, wide_, normed_, q_, k_, v_, up_, k_cache_, v_cache_, logits_,
      index_;
};

struct Line {
  const char* name;
  std::int64_t rows;
  double microseconds, cublas_microseconds, bytes;
};

void print(const Line& line) {
  std::printf("%-36s rows %4lld  %9.2f us  %6.0f GB/s   cuBLASLt alone %9.2f us  %6.0f GB/s\n",
              line.name, static_cast<long long>(line.rows), line.microseconds,
              line.bytes / line.microseconds * 1e-3, line.cublas_microseconds,
              line.bytes / line.cublas_microseconds * 1e-3);
  std::fflush(stdout);
}

void write_json(const std::string& file, const std::vector<Line>& lines) {
  std::ofstream out(file);
  out << "[\n";
  for (const Line& line : lines) {
    out << "  {\"name\": \"" << line.name << "\", \"rows\": " << line.rows
        << ", \"microseconds\": " << line.microseconds
        << ", \"cublas_microseconds\": " << line.cublas_microseconds
        << ", \"bytes\": " << line.bytes << '}' << (&line == &lines.back() ? "\n" : ",\n");
  }
  out << "]\n";
}

// How fast one streaming product is by the size of its weight.
void long_products(Device& device, double seconds) {
  const std::unique_ptr<Ops> ops = make_cuda_ops(device);
  constexpr std::int64_t kElements = std::int64_t{3} << 29;  // 3.2 GB
  const Tensor memory(device, DType::kBF16, {kElements}), x(device, DType::kBF16, {8, 8192});
  const Tensor out(device, DType::kF32, {8, std::int64_t{1} << 19});
  std::mt19937 generator(1);
  std::vector<std::uint32_t> piece((std::size_t{1} << 21) - 3);
  // Two bf16 numbers each, of either sign, from 0.125 to 2.
  for (std::uint32_t& pair : piece) pair = (generator() & 0x81FF81FFU) + 0x3E003E00U;
  for (std::size_t at = 0; at < memory.view().bytes(); at += piece.size() * 4) {
    device.copy_from_host(static_cast<char*>(memory.view().data) + at, piece.data(),
                          std::min(piece.size() * 4, memory.view().bytes() - at));
  }
  for (const std::int64_t inputs : {3072, 8192}) {
    for (const std::int64_t bytes : {25, 50, 100, 200, 400, 800, 1600}) {
      const std::int64_t outputs = bytes * 1000000 / 2 / inputs / 16 * 16;
      const std::int64_t count = kElements / (outputs * inputs);
      const auto all = [&] {
        for (std::int64_t i = 0; i < count; ++i) {
          auto* data = static_cast<BF16*>(memory.view().data) + i * outputs * inputs;
          ops->linear({x.view().data, DType::kBF16, {1, inputs}},
                      {data, DType::kBF16, {outputs, inputs}},
                      {out.view().data, DType::kF32, {1, outputs}}, false);
        }
      };
      all();
      device.synchronize();
      const auto graph = device.capture(all);
      const Timing timing = measure(seconds, [&] {
        graph->launch();
        device.synchronize();
      });
      const double us = timing.median / static_cast<double>(count);
      const double moved = 2.0 * static_cast<double>(outputs * inputs);
      std::printf("store [%7lld, %lld] %6.0f MB  %8.2f us  %5.0f GB/s\n",
                  static_cast<long long>(outputs), static_cast<long long>(inputs), moved / 1e6, us,
                  moved / us / 1e3);
      std::fflush(stdout);
    }
  }
}

}  // namespace

void bench_cuda_linear(const Report& report) {
  const bool products = report.wants("cuda linear"), steps = report.wants("cuda linear step");
  const bool wants_long = report.wants("cuda long");
  if (!products && !steps && !wants_long) return;
  const std::unique_ptr<Device> device = make_device(report.options().device);
  const double seconds = report.options().seconds;
  if (wants_long) long_products(*device, seconds);
  if (!products && !steps) return;
  LinearBench bench(*device);
  std::vector<Line> lines;
  for (int p = 0; p < kProducts && products; ++p) {
    for (const std::int64_t rows : kRowCounts) {
      const auto all = [&](auto one) {
        for (std::size_t i = 0; i < kLayers; ++i) one(i);
      };
      const double own =
          bench.time(seconds, [&] { all([&](std::size_t i) { bench.run(p, rows, i); }); });
      const double other =
          bench.time(seconds, [&] { all([&](std::size_t i) { bench.run_cublas(p, rows, i); }); });
      lines.push_back({kNames[p], rows, own / kLayers, other / kLayers, weight_bytes(p)});
      print(lines.back());
    }
  }
  double bytes = weight_bytes(kLogits);
  for (int p = 0; p < kLogits; ++p) bytes += kLayers * weight_bytes(p);
  for (const std::int64_t rows : kRowCounts) {
    if (!steps) break;
    const auto step = [&](auto one) {
      for (std::size_t i = 0; i < kLayers; ++i) {
        for (int p = 0; p < kLogits; ++p) one(p, i);
      }
      one(kLogits, 0);
    };
    const double own =
        bench.time(seconds, [&] { step([&](int p, std::size_t i) { bench.run(p, rows, i); }); });
    const double other = bench.time(
        seconds, [&] { step([&](int p, std::size_t i) { bench.run_cublas(p, rows, i); }); });
    lines.push_back({"step: 28 layers and head", rows, own, other, bytes});
    print(lines.back());
  }
  if (!report.options().json.empty()) write_json(report.options().json, lines);
}

}  // namespace higgs_rt::bench
