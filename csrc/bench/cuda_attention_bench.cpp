#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "bench/cuda_decoder_bench.h"
#include "bench/report.h"
#include "ops/ops.h"

namespace higgs_rt::bench {

namespace {

constexpr std::int64_t kLayers = 28, kQueryHeads = 24, kKvHeads = 8, kDim = 128;
constexpr std::int32_t kBlockTokens = 16;
constexpr double kSeconds = 0.1;

struct Sequence {
  std::int32_t length, rows;  // its last `rows` positions are the rows of the step
};

class AttentionBench {
 public:
  AttentionBench(Device& device, std::int64_t max_positions)
      : device_(device), ops_(make_cuda_ops(device)) {
    layout_ = {kBlockTokens, static_cast<std::int32_t>(max_positions / kBlockTokens)};
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      keys_.push_back(random({layout_.num_slots(), kKvHeads, kDim}));
      values_.push_back(random({layout_.num_slots(), kKvHeads, kDim}));
    }
  }

  // Median microseconds of one layer.
  double measure(const std::vector<Sequence>& sequences) {
    std::vector<std::int32_t> sequence, position;
    std::int32_t longest = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const Sequence& of = sequences[s];
      longest = std::max(longest, of.length);
      for (std::int32_t p = of.length - of.rows; p < of.length; ++p) {
        sequence.push_back(static_cast<std::int32_t>(s));
        position.push_back(p);
      }
    }
    const auto rows = static_cast<std::int64_t>(sequence.size());
    const auto count = static_cast<std::int64_t>(sequences.size());
    const std::int64_t width = layout_.blocks_for(longest);
    std::vector<std::int32_t> table(static_cast<std::size_t>(count * width));
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
    std::shuffle(table.begin(), table.end(), std::mt19937(1));
    const Tensor seq = integers(sequence, {rows}), pos = integers(position, {rows});
    const Tensor blocks = integers(table, {count, width});
    const Tensor q = random({rows, kQueryHeads, kDim});
    const Tensor out(device_, DType::kBF16, q.view().shape);
    const Ops::AttentionBatch batch = {seq, pos, blocks, layout_,
                                       rows == count ? RowKind::kDecode : RowKind::kPrompt};
    const auto layers = [&] {
      ops_->plan_attention(q, keys_[0], batch);
      for (std::size_t i = 0; i < keys_.size(); ++i) {
        ops_->attention(q, keys_[i], values_[i], batch, out);
      }
    };
    layers();
    const auto graph = device_.capture(layers);
    constexpr int kReplays = 10;
    const Timing timing = bench::measure(kSeconds, [&] {
      for (int i = 0; i < kReplays; ++i) graph->launch();
      device_.synchronize();
    });
    return timing.median / kReplays / kLayers;
  }

 private:
  Tensor integers(const std::vector<std::int32_t>& values, Shape shape) {
    Tensor tensor(device_, DType::kI32, std::move(shape));
    device_.copy_from_host(tensor.view().data, values.data(), tensor.view().bytes());
    return tensor;
  }
  // Filled with one random piece again and again.
  Tensor random(Shape shape) {
    if (piece_.empty()) {
      std::mt19937 generator(1);
      std::normal_distribution<float> normal;
      piece_.resize(std::size_t{1} << 22);
      for (BF16& value : piece_) value = to_bf16(normal(generator));
    }
    Tensor tensor(device_, DType::kBF16, std::move(shape));
    const std::size_t bytes = tensor.view().bytes(), most = piece_.size() * sizeof(BF16);
    for (std::size_t at = 0; at < bytes; at += most) {
      device_.copy_from_host(static_cast<std::byte*>(tensor.view().data) + at, piece_.data(),
                             std::min(most, bytes - at));
    }
    return tensor;
  }

  Device& device_;
  std::unique_ptr<Ops> ops_;
  KvLayout layout_;
  std::vector<Tensor> keys_, values_;
  std::vector<BF16> piece_;
};

}  // namespace

void bench_cuda_attention(const std::string& name) {
  const auto device = make_device(name);
  AttentionBench bench(*device, 256 * 1024);
  std::printf("\nattention, 24/8 heads of 128, bf16, one layer\n%6s %9s %9s %9s\n", "batch",
              "positions", "us", "GB/s");
  for (const std::int32_t batch : {1, 4, 16, 64, 256}) {
    for (const std::int32_t positions : {128, 512, 1024}) {
      const std::vector<Sequence> sequences(static_cast<std::size_t>(batch), {positions, 1});
      const double us = bench.measure(sequences);
      const double bytes = 2.0 * 2.0 * kKvHeads * kDim * positions * batch;
      std::printf("%6d %9d %9.2f %9.0f\n", batch, positions, us, bytes / us / 1e3);
      std::fflush(stdout);
    }
  }
  std::printf("\nprompts\n%6s %9s %9s\n", "rows", "+ decode", "us");
  for (const std::int32_t rows : {64, 128, 256, 512, 1024, 2048}) {
    for (const std::int32_t decode : {0, 63}) {
      std::vector<Sequence> sequences(static_cast<std::size_t>(decode), {512, 1});
      sequences.push_back({rows, rows});
      std::printf("%6d %9d %9.2f\n", rows, decode, bench.measure(sequences));
      std::fflush(stdout);
    }
  }
}

}  // namespace higgs_rt::bench
