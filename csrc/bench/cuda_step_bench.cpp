// Whole steps of the 3B model's shape, without the sampler: of decode rows as one graph, of
// prompts.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "bench/cuda_decode_stamps.h"
#include "bench/cuda_linear_bench.h"
#include "model/decoder.h"
#include "ops/cuda/decode_stamps.h"
#include "ops/cuda/kernels/persist.h"
#include "ops/cuda/kernels/wide_linear.h"
#include "ops/ops.h"

namespace higgs_rt::bench {

namespace {

constexpr std::int64_t kHidden = 3072, kHeads = 24, kKvHeads = 8, kDim = 128, kFfn = 8192;
constexpr std::int64_t kHead = 8208, kLayers = 28, kMaxRows = 256;
constexpr std::int32_t kPositions = 256, kPosition = 228, kBlockTokens = 16, kBlocks = 16;
// With at most half of the rows: two rows' blocks for each.
constexpr std::int32_t kLongPosition = 320, kMostPositions = 2 * kPositions;
constexpr std::int32_t kPrompt = 131, kMaxPrompts = 32, kWords = 1000;  // rows of a prompt
constexpr std::int64_t kMostRows = std::int64_t{kPrompt} * kMaxPrompts;
constexpr int kReplays = 5;
constexpr std::int64_t kAdapters = 4;

class StepBench {
 public:
  // `rank`: of adapters for every linear weight; 0: none.
  explicit StepBench(Device& device, std::int64_t rank = 0)
      : device_(device), ops_(make_cuda_ops(device)) {
    ModelConfig config;
    config.hidden_size = kHidden, config.text_ffn = config.audio_ffn = kFfn;
    config.num_layers = kLayers, config.num_heads = kHeads, config.num_kv_heads = kKvHeads;
    config.head_dim = kDim, config.rms_norm_eps = 1e-5f, config.rope.theta = 500000;
    config.max_positions = kMostPositions, config.num_codebooks = 8, config.codebook_vocab = 1026;
    decoder_ = std::make_unique<Decoder>(config, weights(),
                                         Decoder::Limits{kMostRows, kMostPositions, DType::kBF16},
                                         *ops_, rank == 0 ? AdapterSet{} : adapters(rank));
    cache_.layout = {kBlockTokens, kBlocks * kMaxRows};
    for (std::int64_t i = 0; i < kLayers; ++i) {
      cache_.keys.push_back(random({cache_.layout.num_slots(), kKvHeads, kDim}));
      cache_.values.push_back(random({cache_.layout.num_slots(), kKvHeads, kDim}));
    }
    std::vector<std::int32_t> count(kBlocks * kMaxRows), position(kMaxRows, kPosition), slot;
    std::iota(count.begin(), count.end(), 0);
    for (std::int32_t i = 0; i < kMaxRows; ++i) slot.push_back(i * kPositions + kPosition);
    count_ = integers(count), position_ = integers(position), slot_ = integers(slot);
    for (std::int32_t i = 0; i < kMaxRows / 2; ++i) {
      position[i] = kLongPosition, slot[i] = i * kMostPositions + kLongPosition;
    }
    long_position_ = integers(position), long_slot_ = integers(slot);
    columns_ = integers(std::vector<std::int32_t>(kMaxRows * 8, 5));
    make_prompts();
    set_adapters(0);
  }

  // The rows get the first `count` adapters in turn; 0: none has one.
  void set_adapters(std::int32_t count) {
    std::vector<std::int32_t> chosen;
    for (std::int32_t i = 0; i < kMostRows; ++i) chosen.push_back(count == 0 ? -1 : i % count);
    adapter_ = integers(chosen);
  }

  struct PromptTime {
    double eager, host, graph;  // microseconds: of the GPU, of enqueueing, of the GPU in a graph
  };
  // Of a step of `prompts` whole prompts without logits.
  PromptTime time_prompts(std::int64_t prompts, double seconds) {
    const DecoderBatch batch = prompts_of(prompts);
    const auto step = [&] { decoder_->forward(batch, cache_); };
    step();
    device_.synchronize();
    const std::unique_ptr<DeviceGraph> graph = device_.capture(step);
    PromptTime time{0, 1e30, 0};
    time.eager = measure(seconds,
                         [&] {
                           for (int i = 0; i < kReplays; ++i) step();
                           device_.synchronize();
                         })
                     .median /
                 kReplays;
    for (int i = 0; i < kReplays; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      step();
      const std::chrono::duration<double, std::micro> host =
          std::chrono::steady_clock::now() - begin;
      time.host = std::min(time.host, host.count());
      device_.synchronize();
    }
    time.graph = measure(seconds,
                         [&] {
                           for (int i = 0; i < kReplays; ++i) graph->launch();
                           device_.synchronize();
                         })
                     .median /
                 kReplays;
    return time;
  }

  // Median microseconds of a step of `rows` sequences at position kPosition (`is_long`:
  // kLongPosition), in stages or as one kernel.
  double time(std::int64_t rows, double seconds, bool one_kernel, bool is_long = false) {
    DecoderBatch batch = batch_of(rows, one_kernel);
    if (is_long) {
      batch.position = long_position_.first(rows), batch.slot = long_slot_.first(rows);
      batch.block_table = {count_.data, DType::kI32, {rows, 2 * kBlocks}};
    }
    const auto step = [&] { decoder_->forward(batch, cache_); };
    step();
    device_.synchronize();
    const std::unique_ptr<DeviceGraph> graph = device_.capture(step);
    graph->launch();
    device_.synchronize();
    const Timing timing = measure(seconds, [&] {
      for (int i = 0; i < kReplays; ++i) graph->launch();
      device_.synchronize();
    });
    return timing.median / kReplays;
  }

  // Where a step as one kernel spends its time.
  void print_stamps(std::int64_t rows) {
    const Tensor memory(device_, DType::kI32, {kDecodeBlocks * kLayers * kDecodeStamps * 2});
    record_decode_stamps(static_cast<std::int64_t*>(memory.view().data));
    const DecoderBatch batch = batch_of(rows, true);
    for (int i = 0; i < kReplays; ++i) decoder_->forward(batch, cache_);
    record_decode_stamps(nullptr);
    std::vector<std::int64_t> clocks(kDecodeBlocks * kLayers * kDecodeStamps);
    device_.copy_to_host(clocks.data(), memory.view().data, memory.view().bytes());
    print_decode_stamps(clocks, kLayers, rows * kKvHeads);
  }

 private:
  DecoderBatch batch_of(std::int64_t rows, bool one_kernel) const {
    const auto first = [&](const TensorView& view) { return view.first(rows); };
    DecoderBatch batch;
    batch.ids = batch.sequence = batch.logit_rows = first(count_);
    batch.position = first(position_), batch.slot = first(slot_);
    batch.adapter = first(adapter_);
    batch.columns = {columns_.data, DType::kI32, {rows, 8}};
    batch.last_columns = batch.columns;
    batch.table_rows = {count_.data, DType::kF32, {0, kHidden}};
    batch.block_table = {count_.data, DType::kI32, {rows, kBlocks}};
    batch.kind = RowKind::kDecode, batch.one_kernel = one_kernel;
    return batch;
  }
  void make_prompts() {
    std::vector<std::int32_t> id, sequence, position, slot;
    for (std::int32_t s = 0; s < kMaxPrompts; ++s) {
      for (std::int32_t p = 0; p < kPrompt; ++p) {
        id.push_back((s * kPrompt + p) % kWords), sequence.push_back(s);
        position.push_back(p), slot.push_back(s * kPositions + p);
      }
    }
    prompt_id_ = integers(id), prompt_sequence_ = integers(sequence);
    prompt_position_ = integers(position), prompt_slot_ = integers(slot);
  }
  DecoderBatch prompts_of(std::int64_t prompts) const {
    const auto first = [&](const TensorView& view) { return view.first(prompts * kPrompt); };
    DecoderBatch batch = batch_of(prompts, false);
    batch.num_text_rows = prompts * kPrompt, batch.kind = RowKind::kPrompt;
    batch.ids = first(prompt_id_), batch.sequence = first(prompt_sequence_);
    batch.position = first(prompt_position_), batch.slot = first(prompt_slot_);
    batch.adapter = first(adapter_);
    batch.logit_rows = count_.first(0);
    return batch;
  }
  ModelWeights weights() {
    ModelWeights w;
    w.embed_tokens = random({kWords, kHidden});
    w.embed_columns = random({8 * 1026, kHidden});
    w.norm = random({kHidden});
    w.audio_head = random({kHead, kHidden});
    for (std::int64_t i = 0; i < kLayers; ++i) {
      const std::int64_t q = kHeads * kDim, kv = kKvHeads * kDim;
      const TensorView qkv = random({q + 2 * kv, kHidden}), ffn = random({2 * kFfn, kHidden});
      PathWeights path;
      path.input_norm = path.post_attention_norm = w.norm;
      path.ffn = {ffn.first(kFfn), ffn.slice(kFfn, kFfn), random({kHidden, kFfn})};
      w.layers.push_back({qkv.first(q), qkv.slice(q, kv), qkv.slice(q + kv, kv),
                          random({kHidden, q}), path, path});
    }
    return w;
  }
  AdapterSet adapters(std::int64_t rank) {
    AdapterSet set;
    set.names.assign(kAdapters, "adapter");
    set.rank = rank;
    const std::vector<float> scales(kAdapters, 2.0f);
    set.scale = Tensor(device_, DType::kF32, {kAdapters});
    device_.copy_from_host(set.scale.view().data, scales.data(), set.scale.view().bytes());
    const auto weight = [&](std::int64_t outputs, std::int64_t inputs) -> Ops::Lora {
      return {random({kAdapters, rank, inputs}), random({kAdapters, outputs, rank})};
    };
    for (std::int64_t i = 0; i < kLayers; ++i) {
      constexpr std::int64_t kQ = kHeads * kDim, kKv = kKvHeads * kDim;
      const FfnAdapters ffn{{weight(kFfn, kHidden), weight(kFfn, kHidden)}, weight(kHidden, kFfn)};
      set.layers.push_back({{weight(kQ, kHidden), weight(kKv, kHidden), weight(kKv, kHidden)},
                            weight(kHidden, kQ),
                            ffn,
                            ffn});
    }
    return set;
  }
  // bf16, filled with one random piece again and again.
  TensorView random(Shape shape) {
    if (piece_.empty()) {
      std::mt19937 generator(1);
      std::uniform_real_distribution<float> uniform(-1.0f / 64, 1.0f / 64);
      piece_.resize((std::size_t{4} << 20) - 12);
      for (BF16& value : piece_) value = to_bf16(uniform(generator));
    }
    const Tensor& tensor = owned_.emplace_back(device_, DType::kBF16, std::move(shape));
    const std::size_t bytes = tensor.view().bytes(), most = piece_.size() * sizeof(BF16);
    for (std::size_t at = 0; at < bytes; at += most) {
      device_.copy_from_host(static_cast<char*>(tensor.view().data) + at, piece_.data(),
                             std::min(most, bytes - at));
    }
    return tensor.view();
  }
  TensorView integers(const std::vector<std::int32_t>& values) {
    const auto size = static_cast<std::int64_t>(values.size());
    const Tensor& tensor = owned_.emplace_back(device_, DType::kI32, Shape{size});
    device_.copy_from_host(tensor.view().data, values.data(), tensor.view().bytes());
    return tensor.view();
  }

  Device& device_;
  std::unique_ptr<Ops> ops_;
  std::vector<BF16> piece_;
  std::vector<Tensor> owned_;
  std::unique_ptr<Decoder> decoder_;
  KvCache cache_;
  TensorView count_, position_, slot_, long_position_, long_slot_, columns_, adapter_;
  TensorView prompt_id_, prompt_sequence_, prompt_position_, prompt_slot_;
};

// Steps of a runtime with adapters, of which none, one or all are used.
void adapter_steps(Device& device, double seconds) {
  constexpr std::int64_t kRank = 16;
  StepBench bench(device, kRank);
  for (const std::int64_t rows : {1, 4, 8, 16, 32, 64, 128, 256}) {
    std::printf("adapters of rank %lld, rows %4lld ", static_cast<long long>(kRank),
                static_cast<long long>(rows));
    for (const int used : {0, 1, static_cast<int>(kAdapters)}) {
      bench.set_adapters(used);
      std::printf("  %d used %9.2f us", used, bench.time(rows, seconds, true));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace

void bench_cuda_step(const Report& report) {
  const bool wants_steps = report.wants("cuda decoder");
  const bool wants_adapters = report.wants("cuda adapters");
  const bool wants_prompts = report.wants("cuda prompts");
  if (!wants_steps && !wants_adapters && !wants_prompts) return;
  const std::unique_ptr<Device> device = make_device(report.options().device);
  const double seconds = report.options().seconds;
  if (wants_adapters) adapter_steps(*device, seconds);
  if (!wants_steps && !wants_prompts) return;
  StepBench bench(*device);
  if (wants_prompts) {
    for (const std::int64_t prompts : {1, 2, 3, 4, 5, 8, 11, 16, 32}) {
      const StepBench::PromptTime time = bench.time_prompts(prompts, seconds);
      std::printf("prompt step, rows %4lld  %9.2f us, as a graph %9.2f us, enqueued in %7.2f us\n",
                  static_cast<long long>(prompts * kPrompt), time.eager, time.graph, time.host);
      std::fflush(stdout);
    }
  }
  if (!wants_steps) return;
  for (const std::int64_t rows : {1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256}) {
    std::printf("decoder step, rows %4lld  stages %9.2f us", static_cast<long long>(rows),
                bench.time(rows, seconds, false));
    if (rows <= kOneKernelRows) {
      std::printf("  one kernel %9.2f us, at position %d %9.2f us\n",
                  bench.time(rows, seconds, true), kLongPosition,
                  bench.time(rows, seconds, true, true));
      bench.print_stamps(rows);
    } else if (rows <= kWideMaxRows) {
      std::printf("  norms within %9.2f us\n", bench.time(rows, seconds, true));
    } else {
      std::printf("\n");
    }
    std::fflush(stdout);
  }
}

}  // namespace higgs_rt::bench
