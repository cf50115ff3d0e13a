// From a plan folder to an engine: every check that can be made before memory is taken.
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "engine/tensorrt/bindings.h"
#include "engine/tensorrt/tensorrt_engine.h"
#include "engine/tensorrt/weight_inputs.h"
#include "io/checkpoint_hash.h"

namespace higgs_rt {

namespace {

std::string plan_folder(const EngineConfig& config) {
  if (!config.plan_dir.empty()) return config.plan_dir;
  return (std::filesystem::path(config.model_dir) / "tensorrt").string();
}

void check_checkpoint(const PlanManifest& manifest, const std::string& model_dir) {
  const std::string hash = checkpoint_hash(Checkpoint(model_dir));
  check(manifest.checkpoint_hash == hash, manifest.path.c_str(),
        "decoder.checkpoint_hash: expected ", hash, " (of model_dir ", model_dir, "), got ",
        manifest.checkpoint_hash, ": the plan was built from another checkpoint");
}

EngineSpec make_spec(const EngineConfig& config, const PlanManifest& manifest, Device& device) {
  const PlanLimits& limits = manifest.limits;
  const auto within = [](const char* field, std::int32_t value, std::int32_t most,
                         const char* limit) {
    check(value >= 1 && value <= most, field, "expected 1..", most, " (", limit,
          " of the plan), got ", value);
  };
  within("max_batch", config.max_sequences, limits.max_batch, "max_batch");
  within("max_sequence", config.max_positions, limits.max_seq_len, "max_seq_len");
  check(config.max_rows >= 1, "max_rows", "expected at least 1, got ", config.max_rows);
  const std::int32_t slots = config.num_blocks == 0 ? config.max_sequences : config.num_blocks;
  within("num_blocks", slots, limits.max_batch, "max_batch");
  EngineSpec spec;
  spec.num_codebooks = manifest.model.num_codebooks;
  spec.codebook_vocab = manifest.model.codebook_vocab;
  spec.text_vocab = manifest.model.text_vocab;
  spec.hidden_size = manifest.model.hidden_size;
  spec.max_rows = config.max_rows;
  spec.max_sequences = config.max_sequences;
  spec.max_positions = config.max_positions;
  if (manifest.precision == DType::kF16) spec.largest_table_value = 65504;
  if (manifest.precision == DType::kBF16) spec.largest_table_value = 0x1.FEp127F;
  spec.kv = {limits.max_seq_len, slots};
  spec.shared_blocks = false;  // a slot is one sequence's whole cache
  spec.asynchronous = config.asynchronous.value_or(device.kind() != DeviceKind::kCpu);
  return spec;
}

ModelInfo describe(const EngineConfig& config, const PlanManifest& manifest,
                   const EngineSpec& spec) {
  ModelInfo info;
  info.model_dir = config.model_dir;
  info.layout = manifest.layout;
  info.weight_dtype = manifest.weight_dtype;
  info.engine = manifest.backend;
  info.num_parameters = manifest.num_parameters;
  info.num_layers = manifest.model.num_layers;
  info.hidden_size = manifest.model.hidden_size;
  info.num_heads = manifest.model.num_heads;
  info.num_kv_heads = manifest.model.num_kv_heads;
  info.head_dim = manifest.model.head_dim;
  info.text_vocab = manifest.model.text_vocab;
  info.num_codebooks = manifest.model.num_codebooks;
  info.codebook_vocab = manifest.model.codebook_vocab;
  info.max_sequence = spec.max_positions;
  info.block_tokens = spec.kv.block_tokens;
  info.num_blocks = spec.kv.num_blocks;
  info.kv_bytes = manifest.slot_bytes * spec.kv.num_blocks;
  return info;
}

}  // namespace

LoadedEngine load_plan(const EngineConfig& config, Device& device, ThreadPool& pool,
                       std::unique_ptr<PlanRuntime> runtime) {
  PlanManifest manifest = read_manifest(plan_folder(config));
  check_package(manifest, *runtime);
  check_manifest_bindings(manifest);
  check_checkpoint(manifest, config.model_dir);
  check(slot_stride(manifest) % kPlanAlignment == 0, manifest.path.c_str(),
        "decoder.kv: expected slots of a multiple of ", kPlanAlignment, " bytes per layer, got ",
        slot_stride(manifest));
  const EngineSpec spec = make_spec(config, manifest, device);
  std::unique_ptr<Plan> plan = runtime->load(manifest.plan_path);
  check_plan(manifest, *plan);
  LoadedEngine loaded;
  loaded.info = describe(config, manifest, spec);
  loaded.info.device = device.name();
  std::vector<Tensor> weights = load_weight_inputs(manifest, config.model_dir, device);
  // Weights inside a plan are TensorRT's memory, not the device's.
  for (const Tensor& weight : weights) {
    loaded.info.weight_bytes += static_cast<std::int64_t>(weight.view().bytes());
  }
  loaded.engine =
      std::make_unique<TensorRtEngine>(spec, std::move(manifest), std::move(runtime),
                                       std::move(plan), std::move(weights), make_ops(device, pool));
  return loaded;
}

LoadedEngine load_tensorrt_engine(const EngineConfig& config, Device& device, ThreadPool& pool) {
  return load_plan(config, device, pool, make_plan_runtime(device));
}

}  // namespace higgs_rt
