#include "engine/native/native_engine.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "engine/native/check_batch.h"

namespace higgs_rt {

namespace {

constexpr std::int32_t kDefaultPositions = 1024;  // per sequence, when num_blocks is 0

void check_limits(const EngineConfig& config, const ModelConfig& model) {
  const auto positive = [](const char* field, std::int32_t value) {
    check(value >= 1, field, "expected at least 1, got ", value);
  };
  positive("max_rows", config.max_rows);
  positive("max_sequences", config.max_sequences);
  positive("block_tokens", config.block_tokens);
  check(config.max_positions >= 1 && config.max_positions <= model.max_positions, "max_positions",
        "expected 1..", model.max_positions, " (the model's limit), got ", config.max_positions);
  check(config.num_blocks >= 0, "num_blocks", "expected 0 or more, got ", config.num_blocks);
}

KvLayout make_layout(const EngineConfig& config) {
  KvLayout layout{config.block_tokens, config.num_blocks};
  const std::int64_t one = layout.blocks_for(config.max_positions);
  std::int64_t blocks = config.num_blocks;
  if (blocks == 0) {
    const std::int32_t usual = std::min(kDefaultPositions, config.max_positions);
    blocks = std::max(std::int64_t{config.max_sequences} * layout.blocks_for(usual), one);
  }
  check(blocks >= one, "num_blocks", "expected at least ", one, " (one sequence of ",
        config.max_positions, " positions), got ", blocks);
  check(blocks * config.block_tokens <= std::numeric_limits<std::int32_t>::max(), "num_blocks",
        "expected at most 2^31 - 1 positions in the KV cache, got ", blocks, " blocks of ",
        config.block_tokens);
  layout.num_blocks = static_cast<std::int32_t>(blocks);
  return layout;
}

EngineSpec make_spec(const EngineConfig& config, const ModelConfig& model) {
  EngineSpec spec;
  spec.num_codebooks = model.num_codebooks;
  spec.codebook_vocab = model.codebook_vocab;
  spec.text_vocab = model.text_vocab;
  spec.hidden_size = model.hidden_size;
  spec.max_rows = config.max_rows;
  spec.max_sequences = config.max_sequences;
  spec.max_positions = config.max_positions;
  spec.kv = make_layout(config);
  return spec;
}

std::int32_t num_sampler_rows(const StepBatch& batch) {
  std::int32_t count = 0;
  for (auto i = static_cast<std::size_t>(batch.num_text_rows); i < batch.ids.size(); ++i) {
    if (batch.ids[i] >= StepBatch::kFeedback) {
      count = std::max(count, batch.ids[i] - StepBatch::kFeedback + 1);
    }
  }
  return count;
}

}  // namespace

NativeEngine::NativeEngine(const EngineConfig& config, const ModelConfig& model,
                           ModelWeights weights, std::unique_ptr<Ops> ops)
    : spec_(make_spec(config, model)), ops_(std::move(ops)) {
  decoder_ = std::make_unique<Decoder>(
      model, std::move(weights), Decoder::Limits{config.max_rows, config.max_positions}, *ops_);
  cache_.layout = spec_.kv;
  for (std::int32_t i = 0; i < 2 * model.num_layers; ++i) {
    kv_memory_.emplace_back(device(), DType::kF32,
                            Shape{spec_.kv.num_slots(), model.num_kv_heads, model.head_dim});
    (i % 2 == 0 ? cache_.keys : cache_.values).push_back(kv_memory_.back().view());
  }
  const std::int64_t rows = spec_.max_rows;
  const std::int64_t most =
      rows * (5 + spec_.num_codebooks) +
      std::int64_t{spec_.max_sequences} * spec_.kv.blocks_for(spec_.max_positions);
  indices_ = Tensor(device(), DType::kI32, {most});
  staging_.reserve(static_cast<std::size_t>(most));
  table_rows_ = Tensor(device(), DType::kF32, {rows, spec_.hidden_size});
}

std::int64_t NativeEngine::kv_bytes() const {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : kv_memory_) bytes += static_cast<std::int64_t>(tensor.view().bytes());
  return bytes;
}

void NativeEngine::forward(const StepBatch& batch, StepOutput& output) {
  check_batch(batch, output, spec_);
  output.logits = decoder_->forward(upload(batch, output), cache_).as<float>();
}

DecoderBatch NativeEngine::upload(const StepBatch& batch, const StepOutput& output) {
  staging_.clear();
  auto* memory = indices_.as<std::int32_t>();
  const auto add = [&](const std::vector<std::int32_t>& values, Shape shape) {
    TensorView view{memory + staging_.size(), DType::kI32, std::move(shape)};
    staging_.insert(staging_.end(), values.begin(), values.end());
    return view;
  };
  const std::int64_t rows = batch.num_rows();
  const std::int64_t codebooks = spec_.num_codebooks;
  const auto given = static_cast<std::int64_t>(batch.columns.size()) / codebooks;
  DecoderBatch step;
  step.num_text_rows = batch.num_text_rows;
  step.ids = add(batch.ids, {rows});
  step.sequence = add(batch.sequence, {rows});
  step.position = add(batch.position, {rows});
  step.slot = add(batch.slot, {rows});
  step.columns = add(batch.columns, {given, codebooks});
  step.block_table = add(batch.block_table, {batch.num_sequences, batch.max_blocks});
  step.logit_rows = add(batch.logit_rows, {static_cast<std::int64_t>(batch.logit_rows.size())});
  device().copy_from_host(memory, staging_.data(), staging_.size() * sizeof(std::int32_t));
  step.last_columns = {const_cast<std::int32_t*>(output.last_columns),
                       DType::kI32,
                       {num_sampler_rows(batch), codebooks}};
  const auto table = static_cast<std::int64_t>(batch.table_rows.size()) / spec_.hidden_size;
  step.table_rows = table_rows_.view().first(table);
  device().copy_from_host(step.table_rows.data, batch.table_rows.data(), step.table_rows.bytes());
  return step;
}

LoadedEngine load_native_engine(const EngineConfig& config, Device& device, ThreadPool& pool) {
  const ModelConfig model = read_model_config(config.model_dir);
  check_limits(config, model);
  auto ops = make_ops(device, pool);
  ModelWeights weights =
      load_weights(model, std::make_shared<const Checkpoint>(config.model_dir), device);
  LoadedEngine loaded;
  ModelInfo& info = loaded.info;
  info.model_dir = config.model_dir;
  info.layout = name_of(model.layout);
  info.weight_dtype = weights.dtype;
  info.device = device.name();
  info.engine = "native";
  info.num_parameters = weights.num_parameters;
  info.num_layers = model.num_layers;
  info.hidden_size = model.hidden_size;
  info.num_heads = model.num_heads;
  info.num_kv_heads = model.num_kv_heads;
  info.head_dim = model.head_dim;
  info.text_vocab = model.text_vocab;
  info.num_codebooks = model.num_codebooks;
  info.codebook_vocab = model.codebook_vocab;
  auto engine = std::make_unique<NativeEngine>(config, model, std::move(weights), std::move(ops));
  info.max_sequence = engine->spec().max_positions;
  info.block_tokens = engine->spec().kv.block_tokens;
  info.num_blocks = engine->spec().kv.num_blocks;
  info.kv_bytes = engine->kv_bytes();
  loaded.engine = std::move(engine);
  return loaded;
}

}  // namespace higgs_rt
