#include "engine/native/native_engine.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/trace.h"
#include "engine/native/check_batch.h"
#include "model/pack_weights.h"

namespace higgs_rt {

namespace {

constexpr std::uint64_t kStepsOfTimer = 8;  // that are graphs; the first of them is timed

void check_limits(const EngineConfig& config, const ModelConfig& model) {
  const auto positive = [](const char* field, std::int32_t value) {
    check(value >= 1, field, "expected at least 1, got ", value);
  };
  positive("max_rows", config.max_rows);
  positive("max_batch", config.max_sequences);
  positive("block_tokens", config.block_tokens);
  check(config.max_positions >= 1 && config.max_positions <= model.max_positions, "max_sequence",
        "expected 1..", model.max_positions, " (the model's limit), got ", config.max_positions);
  check(config.num_blocks >= 0, "num_blocks", "expected 0 or more, got ", config.num_blocks);
}

EngineSpec make_spec(const EngineConfig& config, const ModelConfig& model, Device& device) {
  EngineSpec spec;
  spec.num_codebooks = model.num_codebooks;
  spec.codebook_vocab = model.codebook_vocab;
  spec.text_vocab = model.text_vocab;
  spec.hidden_size = model.hidden_size;
  spec.max_rows = config.max_rows;
  spec.max_sequences = config.max_sequences;
  spec.max_positions = config.max_positions;
  spec.kv.block_tokens = config.block_tokens;  // how many blocks is planned last
  spec.shared_blocks = true;
  spec.asynchronous = config.asynchronous.value_or(device.kind() != DeviceKind::kCpu);
  spec.separate_decode = spec.asynchronous || device.kind() != DeviceKind::kCpu;  // graphs want it
  return spec;
}

DType activation_dtype(const ModelWeights& weights, Device& device) {
  return device.kind() == DeviceKind::kCpu ? DType::kF32 : weights.linear_dtype;
}

// Numbers of a step's arrays at most, with the space between them.
std::int64_t eager_words(const EngineSpec& spec) {
  constexpr std::int64_t kSpace = 64;
  const std::int64_t per_row = 7 + spec.num_codebooks + std::int64_t{spec.hidden_size};
  const std::int64_t blocks = spec.kv.blocks_for(spec.max_positions);
  return spec.max_rows * per_row + spec.max_sequences * blocks + kSpace;
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
                           ModelWeights weights, AdapterSet adapters, std::unique_ptr<Ops> ops)
    : spec_(make_spec(config, model, ops->device())),
      max_blocks_(spec_.kv.blocks_for(spec_.max_positions)),
      ops_(std::move(ops)),
      eager_timer_(device().make_timer()),
      graph_timer_(device().make_timer()) {
  const auto allocated = [&] { return static_cast<std::int64_t>(device().allocated_bytes()); };
  memory_.weights = allocated();
  spec_.adapters = adapters.names;
  const DType activations = activation_dtype(weights, device());
  const std::int32_t graph_rows =
      spec_.asynchronous ? DecodeGraphs::largest(spec_.max_sequences) : 0;
  decoder_ =
      std::make_unique<Decoder>(model, std::move(weights),
                                Decoder::Limits{std::max(spec_.max_rows, graph_rows),
                                                spec_.max_positions, activations, graph_rows},
                                *ops_, std::move(adapters));
  staging_ = std::make_unique<StepStaging>(
      device(), std::max(eager_words(spec_),
                         DecodeGraphs::staged_words(graph_rows, max_blocks_, model.num_codebooks)));
  memory_.workspace = allocated() - memory_.weights;
  make_cache(config, model, activations);
}

void NativeEngine::make_cache(const EngineConfig& config, const ModelConfig& model, DType dtype) {
  const std::int64_t row = std::int64_t{model.num_kv_heads} * model.head_dim;
  const std::int64_t block_bytes = 2 * std::int64_t{model.num_layers} * config.block_tokens * row *
                                   static_cast<std::int64_t>(size_of(dtype));
  const std::int32_t scratch = spec_.asynchronous ? 1 : 0;
  spec_.kv = plan_cache(config, block_bytes, scratch, memory_, device());
  cache_.layout = spec_.kv;
  cache_.layout.num_blocks += scratch;
  for (std::int32_t i = 0; i < 2 * model.num_layers; ++i) {
    kv_memory_.emplace_back(device(), dtype,
                            Shape{cache_.layout.num_slots(), model.num_kv_heads, model.head_dim});
    (i % 2 == 0 ? cache_.keys : cache_.values).push_back(kv_memory_.back().view());
  }
}

std::int64_t NativeEngine::kv_bytes() const {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : kv_memory_) bytes += static_cast<std::int64_t>(tensor.view().bytes());
  return bytes;
}

void NativeEngine::attach(StepTail tail) {
  device().synchronize();
  graphs_.reset();
  tail_ = std::move(tail);
  if (!spec_.asynchronous || !tail_.enqueue) return;
  warm_prompts();
  graphs_ = std::make_unique<DecodeGraphs>(
      spec_, max_blocks_, spec_.kv.num_blocks, tail_, *staging_, device(),
      [this](const DecoderBatch& batch, const TensorView& rows) { return run(batch, rows); });
}

// Steps of prompt rows that are padding, so that kernels are loaded and libraries have chosen their
// algorithms before a request needs them; the largest first, so that working memory grows once.
void NativeEngine::warm_prompts() {
  StepOutput output{.last_columns = tail_.last_columns};
  for (std::int32_t rows = spec_.max_rows; rows >= 1; rows -= std::max(1, rows / 16)) {
    const auto count = static_cast<std::size_t>(rows);
    const std::int32_t scratch = spec_.kv.num_blocks;
    StepBatch batch;
    batch.num_text_rows = rows;
    batch.num_sequences = batch.max_blocks = 1;
    batch.ids.assign(count, 0);
    batch.sequence.assign(count, 0);
    batch.position.assign(count, 0);
    batch.slot.assign(count, scratch * spec_.kv.block_tokens);
    batch.block_table = {scratch};
    run_eagerly(batch, output);
  }
  device().synchronize();
}

void NativeEngine::forward(const StepBatch& batch, StepOutput& output) {
  const TraceRange trace("forward");
  ops_->set_busy(true);
  check_batch(batch, output, spec_);
  if (tail_.enqueue) check_tail(batch, output, tail_);
  output.sampled = tail_.enqueue != nullptr;
  output.one_launch = graphs_ != nullptr && batch.decode;
  if (output.one_launch) {
    output.logits = run_graph(batch);
  } else {
    eager_timer_->start();
    output.logits = run_eagerly(batch, output);
    eager_timer_->stop();
  }
}

// Timing events stand between two graphs, where each of them costs the GPU more than a microsecond.
const float* NativeEngine::run_graph(const StepBatch& batch) {
  const bool is_timed = graph_steps_++ % kStepsOfTimer == 0;
  if (is_timed) graph_timer_->start();
  const float* logits = graphs_->run(batch);
  if (is_timed) graph_timer_->stop();
  return logits;
}

DeviceSeconds NativeEngine::device_seconds() {
  if (const double timed = graph_timer_->collect(); timed > 0) graph_seconds_ = timed;
  const auto steps = static_cast<double>(graph_steps_ - std::exchange(told_steps_, graph_steps_));
  const double graphs = steps * graph_seconds_;
  return {.all = graphs + eager_timer_->collect(), .graphs = graphs};
}

const float* NativeEngine::run(const DecoderBatch& batch, const TensorView& sampler_rows) {
  const TensorView logits = decoder_->forward(batch, cache_);
  if (tail_.enqueue && logits.dim(0) != 0) {
    tail_.enqueue(logits.as<float>(), sampler_rows.as<std::int32_t>(),
                  static_cast<std::int32_t>(logits.dim(0)));
  }
  return logits.as<float>();
}

// The adapter of each row, [R].
TensorView NativeEngine::add_adapters(const StepBatch& batch) {
  const StepStaging::Array rows = staging_->take({batch.num_rows()});
  for (std::size_t i = 0; i < rows.host.size(); ++i) {
    const auto sequence = static_cast<std::size_t>(batch.sequence[i]);
    rows.host[i] = batch.adapter.empty() ? -1 : batch.adapter[sequence];
  }
  return rows.device;
}

const float* NativeEngine::run_eagerly(const StepBatch& batch, const StepOutput& output) {
  const std::int64_t rows = batch.num_rows();
  const std::int64_t codebooks = spec_.num_codebooks;
  const auto given = static_cast<std::int64_t>(batch.columns.size()) / codebooks;
  const auto wanted = static_cast<std::int64_t>(batch.logit_rows.size());
  const auto table = static_cast<std::int64_t>(batch.table_rows.size()) / spec_.hidden_size;
  staging_->begin();
  DecoderBatch step;
  step.num_text_rows = batch.num_text_rows;
  step.ids = staging_->add(batch.ids, {rows});
  step.sequence = staging_->add(batch.sequence, {rows});
  step.position = staging_->add(batch.position, {rows});
  step.slot = staging_->add(batch.slot, {rows});
  if (!spec_.adapters.empty()) step.adapter = add_adapters(batch);
  step.columns = staging_->add(batch.columns, {given, codebooks});
  step.block_table = staging_->add(batch.block_table, {batch.num_sequences, batch.max_blocks});
  step.logit_rows = staging_->add(batch.logit_rows, {wanted});
  step.kind = batch.decode ? RowKind::kDecode : RowKind::kPrompt;
  if (!spec_.separate_decode && wanted != 0) step.first_wanted = std::ranges::min(batch.logit_rows);
  TensorView sampler_rows;
  if (tail_.enqueue) sampler_rows = staging_->add(batch.sampler_rows, {wanted});
  const StepStaging::Array table_rows = staging_->take({table, spec_.hidden_size}, DType::kF32);
  if (table != 0) {  // an empty vector may have no address
    std::memcpy(table_rows.host.data(), batch.table_rows.data(), table_rows.host.size_bytes());
  }
  step.table_rows = table_rows.device;
  staging_->upload();
  step.last_columns = {const_cast<std::int32_t*>(output.last_columns),
                       DType::kI32,
                       {num_sampler_rows(batch), codebooks}};
  return run(step, sampler_rows);
}

LoadedEngine load_native_engine(const EngineConfig& config, Device& device, ThreadPool& pool) {
  const ModelConfig model = read_model_config(config.model_dir);
  check_limits(config, model);
  auto ops = make_ops(device, pool);
  std::optional<Adapter> adapter;
  if (!config.adapter_dir.empty()) adapter.emplace(config.adapter_dir);
  ModelWeights weights = load_weights(model, std::make_shared<const Checkpoint>(config.model_dir),
                                      device, adapter ? &*adapter : nullptr);
  adapter.reset();
  AdapterSet adapters =
      load_adapters(config.adapters, model, activation_dtype(weights, device), device);
  if (config.pack_weights) pack_weights(weights, *ops);
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
  info.adapters = adapters.names;
  auto engine = std::make_unique<NativeEngine>(config, model, std::move(weights),
                                               std::move(adapters), std::move(ops));
  info.max_sequence = engine->spec().max_positions;
  info.block_tokens = engine->spec().kv.block_tokens;
  info.num_blocks = engine->spec().kv.num_blocks;
  info.kv_bytes = engine->kv_bytes();
  info.weight_bytes = engine->memory().weights;
  info.workspace_bytes = engine->memory().workspace;
  loaded.engine = std::move(engine);
  return loaded;
}

}  // namespace higgs_rt
