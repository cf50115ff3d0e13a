#include "api/session.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "api/config_check.h"
#include "core/check.h"

namespace higgs_rt {
namespace {

std::string codec_directory(const RuntimeConfig& config) {
  if (config.codec_dir == "none") return "";
  if (!config.codec_dir.empty()) return config.codec_dir;
  const auto directory = std::filesystem::path(config.model_dir) / "codec";
  if (!std::filesystem::is_directory(directory)) {
    fail(ErrorCode::kNotFound, "codec_dir", "expected a codec in ", directory.string(),
         ", another codec_dir, or \"none\", got no such directory");
  }
  return directory.string();
}

void check_codec(const CodecSpec& codec, const ModelInfo& model) {
  check(codec.num_codebooks == model.num_codebooks, "codec", "expected num_codebooks ",
        model.num_codebooks, " (of the language model), got ", codec.num_codebooks);
  check(codec.codebook_size + 2 == model.codebook_vocab, "codec", "expected codebook_size ",
        model.codebook_vocab - 2, " (of the language model, without BOS and EOS), got ",
        codec.codebook_size);
}

std::unique_ptr<Codec> load_codec(const RuntimeConfig& config, Backend& backend) {
  const std::string directory = codec_directory(config);
  if (directory.empty()) return nullptr;
  // A device object of its own: on CUDA a stream beside the language model's, which goes first.
  std::unique_ptr<Device> device = make_device(config.device, Priority::kLow);
  std::unique_ptr<Ops> ops = make_ops(*device, *backend.pool);
  const Device& codec_device = *device;
  auto codec = std::make_unique<Codec>(directory, std::move(device), std::move(ops));
  backend.info.codec_bytes = static_cast<std::int64_t>(codec_device.allocated_bytes());
  check_codec(codec->spec(), backend.info);
  backend.info.has_codec = true;
  backend.info.sample_rate = codec->spec().sample_rate;
  backend.info.samples_per_frame = codec->spec().samples_per_frame;
  return codec;
}

ExecutorConfig executor_config(const RuntimeConfig& config) {
  return {.max_batch = config.max_batch,
          .max_queue = config.max_queue,
          .max_step_tokens = config.max_step_tokens,
          .max_held_steps = config.max_held_steps,
          .max_sequence = config.max_sequence,
          .prefix_cache = config.prefix_cache};
}

SamplerSpec sampler_spec(const RuntimeConfig& config, const EngineSpec& engine) {
  return {.max_rows = config.max_batch,
          .num_codebooks = engine.num_codebooks,
          .codebook_vocab = engine.codebook_vocab};
}

Memory memory_of(Device& device) {
  return {static_cast<std::int64_t>(device.memory().free_bytes),
          static_cast<std::int64_t>(device.allocated_bytes())};
}

}  // namespace

Session::Session(const RuntimeConfig& the_config)
    : config(with_defaults(the_config)),
      backend(load_backend(config, config.max_batch)),
      before(memory_of(*backend.device)),
      codec(load_codec(config, backend)),
      sampler(make_sampler(sampler_spec(config, backend.engine->spec()), *backend.device)),
      stage(codec.get()),
      executor(*backend.engine, *sampler, executor_config(config), [this] { wake_stage(); }) {
  note_memory();
}

void Session::wake_stage() {
  if (std::exchange(has_news, false)) stage.notify();
}

// What the GPU lacks and nobody allocated is the graphs'.
void Session::note_memory() {
  ModelInfo& info = backend.info;
  if (info.device_bytes == 0) return;
  const Memory now = memory_of(*backend.device);
  info.graph_bytes = std::max<std::int64_t>(
      0, before.free - now.free - (now.allocated - before.allocated) - info.codec_bytes);
  info.workspace_bytes = now.allocated - info.weight_bytes - info.kv_bytes;
}

void Session::shutdown() {
  stage.check_caller();
  executor.shutdown();
  stage.shutdown();
}

}  // namespace higgs_rt
