// A decode step in the device's own form (one kernel, or products with the norms within) against
// the same step in stages, on the GPU: the released shape with fewer layers. Needs a build with
// CUDA and a GPU.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <stdexcept>

#include "check.h"
#include "core/device.h"
#include "few.h"
#include "higgs_rt/error.h"
#include "model/decoder.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

constexpr std::int64_t kDim = 128, kHead = 8208;
constexpr std::int32_t kPositions = 2048, kBlockTokens = 16, kBlocks = kPositions / kBlockTokens;
constexpr std::int32_t kMaxRows = 128, kCacheBlocks = 4096;

std::mt19937& generator() {
  static std::mt19937 engine(20261121);
  return engine;
}

struct Sizes {
  std::int64_t hidden = 3072, ffn = 8192, heads = 24, kv_heads = 8;
};

struct Model {
  Sizes sizes;
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
  std::vector<Tensor> owned;
  // Of steps of any number of rows, and of up to 16 (Ops::DecodeStep::most_rows).
  std::unique_ptr<Decoder> decoder, decoder_of_16;
  KvCache cache;
  std::vector<BF16> piece;

  explicit Model(int layers, const Sizes& of = {}) : sizes(of) {
    try {
      device = make_cuda_device(0);
    } catch (const Error& error) {
      SKIP(error.what());
    }
    ops = make_cuda_ops(*device);
    std::normal_distribution<float> normal(0.0f, 0.018f);
    piece.resize((std::size_t{4} << 20) - 12);
    for (BF16& value : piece) value = to_bf16(normal(generator()));
    ModelConfig config;
    config.hidden_size = of.hidden, config.text_ffn = config.audio_ffn = of.ffn;
    config.num_layers = layers, config.num_heads = of.heads, config.num_kv_heads = of.kv_heads;
    config.head_dim = kDim, config.rms_norm_eps = 1e-5f, config.rope.theta = 500000;
    config.max_positions = kPositions, config.num_codebooks = 8, config.codebook_vocab = 1026;
    ModelWeights w;
    w.embed_columns = random({8 * 1026, of.hidden});
    w.norm = norm(), w.audio_head = random({kHead, of.hidden});
    for (int i = 0; i < layers; ++i) {
      const std::int64_t q = of.heads * kDim, kv = of.kv_heads * kDim;
      const TensorView qkv = random({q + 2 * kv, of.hidden});
      const TensorView ffn = random({2 * of.ffn, of.hidden});
      PathWeights path;
      path.input_norm = norm(), path.post_attention_norm = norm();
      path.ffn = {ffn.first(of.ffn), ffn.slice(of.ffn, of.ffn), random({of.hidden, of.ffn})};
      w.layers.push_back({qkv.first(q), qkv.slice(q, kv), qkv.slice(q + kv, kv),
                          random({of.hidden, q}), path, path});
    }
    const Decoder::Limits limits{kMaxRows, kPositions, DType::kBF16, kMaxRows};
    Decoder::Limits few = limits;
    few.decode_rows = 16;
    decoder_of_16 = std::make_unique<Decoder>(config, w, few, *ops);
    decoder = std::make_unique<Decoder>(config, std::move(w), limits, *ops);
    cache.layout = {kBlockTokens, kCacheBlocks};
    for (int i = 0; i < layers; ++i) {
      cache.keys.push_back(random({cache.layout.num_slots(), of.kv_heads, kDim}, 40));
      cache.values.push_back(random({cache.layout.num_slots(), of.kv_heads, kDim}, 40));
    }
  }
  TensorView random(Shape shape, float factor = 1.0f) {
    std::vector<BF16> values(piece.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = factor == 1.0f ? piece[i] : to_bf16(to_float(piece[i]) * factor);
    }
    const Tensor& tensor = owned.emplace_back(*device, DType::kBF16, std::move(shape));
    const std::size_t bytes = tensor.view().bytes(), most = values.size() * sizeof(BF16);
    const std::size_t turn = generator()() % 1000 * 2;
    for (std::size_t at = 0; at < bytes; at += most - turn) {
      device->copy_from_host(static_cast<char*>(tensor.view().data) + at,
                             reinterpret_cast<const char*>(values.data()) + turn,
                             std::min(most - turn, bytes - at));
    }
    return tensor.view();
  }
  TensorView norm() {
    std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
    std::vector<BF16> values(static_cast<std::size_t>(sizes.hidden));
    for (BF16& value : values) value = to_bf16(uniform(generator()));
    const Tensor& tensor = owned.emplace_back(*device, DType::kBF16, Shape{sizes.hidden});
    device->copy_from_host(tensor.view().data, values.data(), tensor.view().bytes());
    return tensor.view();
  }
  Tensor integers(const std::vector<std::int32_t>& values, Shape shape) const {
    Tensor tensor(*device, DType::kI32, std::move(shape));
    device->copy_from_host(tensor.view().data, values.data(), tensor.view().bytes());
    return tensor;
  }
};

// Rows of a step: position and sequence (its blocks) of each.
struct Step {
  std::vector<std::int32_t> position, sequence, columns;
  std::vector<std::int32_t> table;  // [rows, kBlocks]
};

// Every sequence has blocks of its own up to `longest`.
Step random_step(std::int64_t rows, std::int32_t longest) {
  Step step;
  std::vector<std::int32_t> blocks(kCacheBlocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), generator());
  const std::int64_t each = longest / kBlockTokens + 1;
  if (rows * each > kCacheBlocks) throw std::runtime_error("the cache is too small for the step");
  step.table.resize(static_cast<std::size_t>(rows) * kBlocks);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy_n(blocks.begin() + i * each, each, step.table.begin() + i * kBlocks);
    step.position.push_back(
        static_cast<std::int32_t>(generator()() % static_cast<unsigned>(longest)));
    step.sequence.push_back(static_cast<std::int32_t>(i));
    for (int k = 0; k < 8; ++k)
      step.columns.push_back(static_cast<std::int32_t>(generator()() % 1026));
  }
  std::shuffle(step.sequence.begin(), step.sequence.end(), generator());
  return step;
}

struct Result {
  std::vector<float> logits;
  std::vector<std::vector<BF16>> written;  // keys and values of the rows, by layer
};

// `whole`: in the device's own form. `replays` > 0: as a graph, that many times.
Result run(Model& model, const Step& step, bool whole, int replays = 0, bool of_16 = false) {
  Decoder& decoder = of_16 ? *model.decoder_of_16 : *model.decoder;
  const auto rows = static_cast<std::int64_t>(step.position.size());
  std::vector<std::int32_t> order(static_cast<std::size_t>(rows)), slot;
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = 0; i < step.position.size(); ++i) {
    const auto block = static_cast<std::size_t>(step.sequence[i] * kBlocks + step.position[i] / 16);
    slot.push_back(step.table[block] * 16 + step.position[i] % 16);
  }
  const Tensor ids = model.integers(order, {rows}),
               position = model.integers(step.position, {rows});
  const Tensor slots = model.integers(slot, {rows});
  const Tensor sequence = model.integers(step.sequence, {rows});
  const Tensor columns = model.integers(step.columns, {rows, 8});
  const Tensor table =
      model.integers(step.table, {static_cast<std::int64_t>(step.table.size()) / kBlocks, kBlocks});
  DecoderBatch batch;
  batch.ids = batch.logit_rows = ids;
  batch.sequence = sequence, batch.position = position, batch.slot = slots;
  batch.columns = batch.last_columns = columns;
  batch.table_rows = {table.view().data, DType::kF32, {0, model.sizes.hidden}};
  batch.block_table = table;
  batch.kind = RowKind::kDecode, batch.one_kernel = whole;
  TensorView logits = decoder.forward(batch, model.cache);
  model.device->synchronize();
  if (replays > 0) {
    const auto graph = model.device->capture([&] { logits = decoder.forward(batch, model.cache); });
    for (int i = 0; i < replays; ++i) graph->launch();
    model.device->synchronize();
  }
  Result result;
  result.logits.resize(static_cast<std::size_t>(rows * kHead));
  model.device->copy_to_host(result.logits.data(), logits.data, result.logits.size() * 4);
  for (const auto* caches : {&model.cache.keys, &model.cache.values}) {
    for (const TensorView& one : *caches) {
      for (const std::int32_t at : slot) {
        std::vector<BF16> numbers(static_cast<std::size_t>(model.sizes.kv_heads * kDim));
        model.device->copy_to_host(numbers.data(), one.slice(at, 1).data, numbers.size() * 2);
        result.written.push_back(numbers);
      }
    }
  }
  return result;
}

double error_of(const std::vector<float>& got, const std::vector<float>& expected) {
  double wrong = 0.0, whole = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    wrong += (got[i] - expected[i]) * static_cast<double>(got[i] - expected[i]);
    whole += expected[i] * static_cast<double>(expected[i]);
  }
  return std::sqrt(wrong / whole);
}

std::vector<float> wide(const std::vector<std::vector<BF16>>& rows) {
  std::vector<float> out;
  for (const auto& row : rows) {
    for (const BF16 value : row) out.push_back(to_float(value));
  }
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

void compare_with_stages(Model& model, std::int64_t rows, std::int32_t longest) {
  const Step step = random_step(rows, longest);
  const Result stages = run(model, step, false), own = run(model, step, true);
  const double logits = error_of(own.logits, stages.logits);
  const double written = error_of(wide(own.written), wide(stages.written));
  std::cerr << "rows " << rows << " longest " << longest << " logits " << logits << " cache "
            << written << '\n';
  EXPECT(logits < 1e-2);
  EXPECT(written < 1e-2);
  EXPECT(logits > 0.0);  // else both took the same way
}

// The first `rows` rows of a step alone: the same bits.
void compare_bits(Model& model, const Step& all, const Result& whole, std::size_t rows,
                  bool of_16 = false) {
  Step part = all;
  part.position.resize(rows), part.sequence.resize(rows), part.columns.resize(rows * 8);
  const Result few = run(model, part, true, 0, of_16);
  const std::vector<float> expected(
      whole.logits.begin(), whole.logits.begin() + static_cast<std::ptrdiff_t>(rows * kHead));
  EXPECT(same(few.logits, expected));
}

}  // namespace

TEST("cuda: a decode step in one kernel is the step in stages") {
  Model model(fewest_only() ? 1 : few_only() ? 2 : 3);
  // Few rows behind many, so that what a step leaves of many rows is cleared by one of few.
  for (const std::int64_t rows : all_or_few<std::int64_t>({1, 2, 3, 5, 8, 7, 1, 8, 2, 8}, {1, 8})) {
    for (const std::int32_t longest : all_or_few<std::int32_t>({1, 17, 300, 2040}, {300})) {
      compare_with_stages(model, rows, longest);
    }
  }
}

TEST("cuda: a row of a decode step in one kernel has the same bits in every step") {
  Model model(few_only() ? 1 : 2);
  const Step all = random_step(8, 700);
  const Result whole = run(model, all, true);
  for (const std::size_t rows : all_or_few<std::size_t>({1, 3, 5, 7}, {3})) {
    compare_bits(model, all, whole, rows);
  }
  for (int i = 0; i < (few_only() ? 0 : 20); ++i)
    EXPECT(same(run(model, all, true).logits, whole.logits));
}

TEST("cuda: thousands of decode steps in one kernel") {
  Model model(few_only() ? 1 : 2);
  for (const std::int64_t rows : all_or_few<std::int64_t>({1, 8}, {8})) {
    const Step step = random_step(rows, 300);
    const Result once = run(model, step, true),
                 often = run(model, step, true, few_only() ? 1 : 2000);
    EXPECT(same(once.logits, often.logits));
  }
}

namespace {

// For steps with norms within their products. Fewest: of a size at which the head has one block for
// a tile and the other products have some.
Model wide_model(int layers) { return fewest_only() ? Model(1, {768, 2048, 6, 2}) : Model(layers); }

}  // namespace

TEST("cuda: a decode step with norms within its products is the step in stages") {
  Model model = wide_model(few_only() ? 2 : 3);
  for (const std::int64_t rows :
       all_or_few<std::int64_t>({17, 24, 33, 64, 100, 128}, {17, 40, 65})) {
    for (const std::int32_t longest : all_or_few<std::int32_t>({1, 40, 500}, {60})) {
      compare_with_stages(model, rows, longest);
    }
  }
  // Up to 16 rows of the released shape alone are of this form.
  if (!fewest_only()) return;
  Model released(1);
  compare_with_stages(released, 16, 60);
}

TEST("cuda: a row of a decode step with norms within has the same bits in every step") {
  Model model = wide_model(few_only() ? 1 : 2);
  const Step all = random_step(128, 500);
  const Result whole = run(model, all, true);
  for (const std::size_t rows :
       all_or_few<std::size_t>({9, 16, 17, 32, 33, 50, 64, 65, 100}, {33})) {
    compare_bits(model, all, whole, rows);
  }
  // Where no step has more than 16 rows, those of 1 to 8 of the released shape are of this form
  // too.
  for (const std::size_t rows : all_few_or_fewest<std::size_t>({1, 5, 8, 16}, {5}, {})) {
    compare_bits(model, all, whole, rows, true);
  }
  for (int i = 0; i < (few_only() ? 0 : 20); ++i)
    EXPECT(same(run(model, all, true).logits, whole.logits));
}

TEST("cuda: thousands of decode steps with norms within") {
  Model model = wide_model(few_only() ? 1 : 2);
  for (const std::int64_t rows : all_or_few<std::int64_t>({9, 17, 64, 128}, {64})) {
    const Step step = random_step(rows, 300);
    const Result once = run(model, step, true),
                 often = run(model, step, true, few_only() ? 1 : 1000);
    EXPECT(same(once.logits, often.logits));
  }
}
