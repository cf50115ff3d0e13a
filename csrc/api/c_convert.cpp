#include "api/c_convert.h"

namespace higgs_rt::c_api {

higgs_runtime_config default_config() {
  const RuntimeConfig config;
  return {.struct_size = sizeof(higgs_runtime_config),
          .model_dir = "",
          .codec_dir = "",
          .device = "cpu",
          .backend = "native",
          .plan_dir = "",
          .num_threads = config.num_threads,
          .max_batch = config.max_batch,
          .max_queue = config.max_queue,
          .max_step_tokens = config.max_step_tokens,
          .max_sequence = config.max_sequence,
          .block_tokens = config.block_tokens,
          .num_blocks = config.num_blocks,
          .max_buffered_chunks = config.max_buffered_chunks,
          .gpu_memory_fraction = config.gpu_memory_fraction,
          .max_held_steps = config.max_held_steps,
          .prefix_cache = config.prefix_cache,
          .adapter_dir = "",
          .adapters = nullptr,
          .num_adapters = 0};
}

namespace {

std::vector<NamedAdapter> adapters_of(const higgs_runtime_config& config) {
  check(config.adapters != nullptr || config.num_adapters == 0, "adapters",
        "expected a pointer, got NULL");
  std::vector<NamedAdapter> adapters;
  for (std::size_t i = 0; i < config.num_adapters; ++i) {
    adapters.push_back({&require(config.adapters[i].name, "adapters.name"),
                        &require(config.adapters[i].dir, "adapters.dir")});
  }
  return adapters;
}

}  // namespace

RuntimeConfig to_cpp(const higgs_runtime_config& config) {
  const auto text = [](const char* value, const char* where) -> std::string {
    return &require(value, where);
  };
  return {.model_dir = text(config.model_dir, "model_dir"),
          .codec_dir = text(config.codec_dir, "codec_dir"),
          .device = text(config.device, "device"),
          .backend = text(config.backend, "backend"),
          .plan_dir = text(config.plan_dir, "plan_dir"),
          .num_threads = config.num_threads,
          .max_batch = config.max_batch,
          .max_queue = config.max_queue,
          .max_step_tokens = config.max_step_tokens,
          .max_sequence = config.max_sequence,
          .block_tokens = config.block_tokens,
          .num_blocks = config.num_blocks,
          .gpu_memory_fraction = config.gpu_memory_fraction,
          .max_buffered_chunks = config.max_buffered_chunks,
          .max_held_steps = config.max_held_steps,
          .prefix_cache = config.prefix_cache,
          .adapter_dir = text(config.adapter_dir, "adapter_dir"),
          .adapters = adapters_of(config)};
}

higgs_request default_request() {
  const Request request;
  const SamplingParams sampling;
  return {.struct_size = sizeof(higgs_request),
          .prompt = nullptr,
          .num_segments = 0,
          .max_columns = request.max_columns,
          .output = static_cast<std::int32_t>(request.output),
          .stream = request.stream,
          .first_chunk_frames = request.first_chunk_frames,
          .max_chunk_frames = request.max_chunk_frames,
          .temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .ras_window = sampling.ras_window,
          .ras_max_repeat = sampling.ras_max_repeat,
          .seed = sampling.seed,
          .rule = static_cast<std::int32_t>(sampling.rule),
          .adapter = ""};
}

namespace {

// Checks that `value` is an enumerator 0..last and converts it.
template <class Enum>
Enum to_enum(std::int32_t value, std::int32_t last, const char* where) {
  check(value >= 0 && value <= last, where, "expected 0..", last, ", got ", value);
  return static_cast<Enum>(value);
}

PromptSegment to_cpp(const higgs_segment& segment) {
  PromptSegment out;
  out.kind = to_enum<PromptSegment::Kind>(segment.kind, HIGGS_SEGMENT_TABLE, "segment.kind");
  if (out.kind == PromptSegment::Kind::kTable) {
    check(segment.rows != nullptr, "segment.rows", "expected a pointer, got NULL");
    out.rows.assign(segment.rows, segment.rows + segment.count);
  } else {
    check(segment.ids != nullptr, "segment.ids", "expected a pointer, got NULL");
    out.ids.assign(segment.ids, segment.ids + segment.count);
  }
  return out;
}

}  // namespace

Request to_cpp(const higgs_request& request) {
  Request out;
  check(request.prompt != nullptr || request.num_segments == 0, "prompt",
        "expected a pointer, got NULL");
  for (std::size_t i = 0; i < request.num_segments; ++i) {
    out.prompt.push_back(to_cpp(request.prompt[i]));
  }
  out.sampling = {.temperature = request.temperature,
                  .top_k = request.top_k,
                  .top_p = request.top_p,
                  .ras_window = request.ras_window,
                  .ras_max_repeat = request.ras_max_repeat,
                  .seed = request.seed,
                  .rule = to_enum<StreamRule>(request.rule, HIGGS_RULE_TRANSFORMERS, "rule")};
  out.max_columns = request.max_columns;
  out.output = to_enum<OutputKind>(request.output, HIGGS_OUTPUT_FRAMES, "output");
  out.stream = request.stream != 0;
  out.first_chunk_frames = request.first_chunk_frames;
  out.max_chunk_frames = request.max_chunk_frames;
  if (request.adapter != nullptr) out.adapter = request.adapter;
  return out;
}

higgs_chunk to_c(const Chunk& chunk, std::int32_t num_codebooks) {
  return {.struct_size = sizeof(higgs_chunk),
          .pcm = chunk.pcm.data(),
          .num_samples = chunk.pcm.size(),
          .frames = chunk.frames.data(),
          .num_frames = chunk.num_frames,
          .last = chunk.last,
          .finish = static_cast<std::int32_t>(chunk.finish),
          .error = chunk.error.c_str(),
          .columns = chunk.columns.data(),
          .num_columns = static_cast<std::int32_t>(chunk.columns.size()) / num_codebooks};
}

higgs_model_info to_c(const ModelInfo& info) {
  return {.struct_size = sizeof(higgs_model_info),
          .layout = info.layout.c_str(),
          .weight_dtype = info.weight_dtype.c_str(),
          .device = info.device.c_str(),
          .engine = info.engine.c_str(),
          .num_parameters = info.num_parameters,
          .num_layers = info.num_layers,
          .hidden_size = info.hidden_size,
          .text_vocab = info.text_vocab,
          .num_codebooks = info.num_codebooks,
          .codebook_vocab = info.codebook_vocab,
          .max_sequence = info.max_sequence,
          .has_codec = info.has_codec,
          .sample_rate = info.sample_rate,
          .samples_per_frame = info.samples_per_frame,
          .num_blocks = info.num_blocks,
          .kv_bytes = info.kv_bytes,
          .weight_bytes = info.weight_bytes,
          .workspace_bytes = info.workspace_bytes,
          .codec_bytes = info.codec_bytes,
          .graph_bytes = info.graph_bytes,
          .device_bytes = info.device_bytes,
          .num_adapters = static_cast<std::int32_t>(info.adapters.size())};
}

higgs_stats to_c(const RuntimeStats& stats) {
  return {.struct_size = sizeof(higgs_stats),
          .submitted = stats.submitted,
          .finished = stats.finished,
          .cancelled = stats.cancelled,
          .failed = stats.failed,
          .refused = stats.refused,
          .preemptions = stats.preemptions,
          .steps = stats.steps,
          .columns = stats.columns,
          .prompt_rows = stats.prompt_rows,
          .running = stats.running,
          .waiting = stats.waiting,
          .free_blocks = stats.free_blocks,
          .total_blocks = stats.total_blocks,
          .forward_seconds = stats.forward_seconds,
          .sample_seconds = stats.sample_seconds,
          .step_seconds = stats.step_seconds,
          .wait_seconds = stats.wait_seconds,
          .device_seconds = stats.device_seconds,
          .graph_steps = stats.graph_steps,
          .graph_seconds = stats.graph_seconds,
          .prefix_positions = stats.prefix_positions,
          .prefix_hits = stats.prefix_hits,
          .prefix_evictions = stats.prefix_evictions,
          .cached_blocks = stats.cached_blocks,
          .graph_rows = stats.graph_rows};
}

higgs_timing to_c(const RequestTiming& timing) {
  return {.struct_size = sizeof(higgs_timing),
          .started = timing.started,
          .first_column = timing.first_column,
          .first_chunk = timing.first_chunk,
          .finished = timing.finished};
}

}  // namespace higgs_rt::c_api
