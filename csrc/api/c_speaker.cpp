// The C API of Speaker.
#include <cstring>
#include <memory>
#include <string>

#include "api/c_convert.h"
#include "api/c_handles.h"

namespace higgs_rt::c_api {
namespace {

std::string text_of(const char* value) { return value == nullptr ? "" : value; }

// Checks that `value` is 0..last and converts it.
template <class Enum>
Enum to_enum(std::int32_t value, std::int32_t last, const char* where) {
  check(value >= 0 && value <= last, where, "expected 0..", last, ", got ", value);
  return static_cast<Enum>(value);
}

higgs_speaker_config default_speaker_config() {
  const SpeakerConfig config;
  return {.struct_size = sizeof(higgs_speaker_config),
          .voices_dir = "",
          .convention = static_cast<std::int32_t>(config.convention),
          .max_text_chars = config.max_text_chars};
}

SpeakerConfig speaker_config_of(const higgs_speaker_config& config) {
  return {.voices_dir = text_of(config.voices_dir),
          .convention =
              to_enum<Convention>(config.convention, HIGGS_CONVENTION_TRANSFORMERS, "convention"),
          .max_text_chars = config.max_text_chars};
}

higgs_speak_options default_options(const SpeechSettings& settings) {
  const SpeakOptions options;
  return {.struct_size = sizeof(higgs_speak_options),
          .voice = "",
          .speakers = nullptr,
          .num_speakers = 0,
          .scene = "",
          .placement = static_cast<std::int32_t>(options.placement),
          .normalize = options.normalize,
          .spelled_out = options.spelled_out,
          .max_turn_chars = settings.max_turn_chars,
          .temperature = settings.temperature,
          .top_k = settings.top_k,
          .top_p = settings.top_p,
          .ras_window = options.ras_window,
          .ras_max_repeat = options.ras_max_repeat,
          .seed = options.seed,
          .rule = static_cast<std::int32_t>(options.rule),
          .max_seconds = options.max_seconds,
          .stream = 1,
          .first_chunk_frames = options.first_chunk_frames,
          .max_chunk_frames = options.max_chunk_frames,
          .adapter = ""};
}

SpeakOptions speak_options_of(const higgs_speak_options& options) {
  SpeakOptions out;
  out.voice = text_of(options.voice);
  check(options.speakers != nullptr || options.num_speakers == 0, "speakers",
        "expected a pointer, got NULL");
  for (std::size_t i = 0; i < options.num_speakers; ++i) {
    out.speakers.push_back(
        {text_of(options.speakers[i].voice), text_of(options.speakers[i].description)});
  }
  out.scene = text_of(options.scene);
  out.placement = to_enum<Placement>(options.placement, HIGGS_PLACEMENT_SYSTEM, "placement");
  out.normalize = options.normalize != 0;
  out.spelled_out = options.spelled_out != 0;
  out.temperature = options.temperature;
  out.top_k = options.top_k;
  out.top_p = options.top_p;
  out.max_turn_chars = options.max_turn_chars;
  out.ras_window = options.ras_window;
  out.ras_max_repeat = options.ras_max_repeat;
  out.seed = options.seed;
  out.rule = to_enum<StreamRule>(options.rule, HIGGS_RULE_TRANSFORMERS, "rule");
  out.max_seconds = options.max_seconds;
  out.first_chunk_frames = options.first_chunk_frames;
  out.max_chunk_frames = options.max_chunk_frames;
  out.adapter = text_of(options.adapter);
  return out;
}

}  // namespace
}  // namespace higgs_rt::c_api

using namespace higgs_rt;         // NOLINT: this file is the C face of that namespace
using namespace higgs_rt::c_api;  // NOLINT

extern "C" {

void higgs_speaker_config_init(higgs_speaker_config* config, size_t struct_size) {
  init_struct(default_speaker_config(), config, struct_size);
}

higgs_status higgs_speaker_load(const higgs_runtime_config* runtime,
                                const higgs_speaker_config* config, higgs_speaker** speaker) {
  return guarded([&] {
    require(speaker, "speaker") = nullptr;
    const higgs_speaker_config defaults = default_speaker_config();
    auto handle = std::make_unique<higgs_speaker>();
    handle->speaker = Speaker::load(
        to_cpp(read_struct(runtime, default_config(), "runtime")),
        speaker_config_of(config == nullptr ? defaults : read_struct(config, defaults, "config")));
    handle->runtime.runtime = {&handle->speaker->runtime(), [](Runtime*) {}};
    *speaker = handle.release();
    return HIGGS_OK;
  });
}

void higgs_speaker_free(higgs_speaker* speaker) { delete speaker; }

higgs_runtime* higgs_speaker_runtime(higgs_speaker* speaker) {
  return speaker == nullptr ? nullptr : &speaker->runtime;
}

higgs_status higgs_speaker_voice_name(const higgs_speaker* speaker, size_t index, char* name,
                                      size_t capacity) {
  return guarded([&] {
    const std::vector<std::string> names = require(speaker, "speaker").speaker->voices();
    if (index >= names.size()) return HIGGS_END;
    const std::size_t needed = names[index].size() + 1;
    check(capacity >= needed, "capacity", "expected at least ", needed, ", got ", capacity);
    std::memcpy(&require(name, "name"), names[index].c_str(), needed);
    return HIGGS_OK;
  });
}

higgs_status higgs_speak_options_init(const higgs_speaker* speaker, higgs_speak_options* options,
                                      size_t struct_size) {
  return guarded([&] {
    const SpeechSettings& settings = require(speaker, "speaker").speaker->settings();
    require(options, "options");
    init_struct(default_options(settings), options, struct_size);
    return HIGGS_OK;
  });
}

higgs_status higgs_speak(higgs_speaker* speaker, const char* text,
                         const higgs_speak_options* options, higgs_stream** stream) {
  return guarded([&] {
    require(stream, "stream") = nullptr;
    const Speaker& loaded = *require(speaker, "speaker").speaker;
    const higgs_speak_options defaults = default_options(loaded.settings());
    const higgs_speak_options given =
        options == nullptr ? defaults : read_struct(options, defaults, "options");
    auto handle = std::make_unique<higgs_stream>();
    handle->num_codebooks = loaded.runtime().info().num_codebooks;
    handle->stream = loaded.runtime().submit(
        loaded.request(&require(text, "text"), speak_options_of(given), given.stream != 0));
    *stream = handle.release();
    return HIGGS_OK;
  });
}

}  // extern "C"
