// Speaker: prompts and voices over a Runtime.
#include "higgs_rt/speaker.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "text/prompt.h"
#include "text/settings.h"
#include "text/text_rules.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/voice_file.h"

namespace higgs_rt {

namespace {

constexpr double kMaxSeconds = 1e6;  // of a request, however long its text is

std::string codec_of(const RuntimeConfig& config) {
  check(config.codec_dir != "none", "codec_dir", "expected a codec to speak with, got \"none\"");
  if (!config.codec_dir.empty()) return config.codec_dir;
  return (std::filesystem::path(config.model_dir) / "codec").string();
}

std::string tokenizer_of(const RuntimeConfig& config) {
  return (std::filesystem::path(config.model_dir) / "tokenizer.json").string();
}

SpeakerConfig checked(const SpeakerConfig& config) {
  check(config.max_text_chars >= 1, "max_text_chars", "expected at least 1, got ",
        config.max_text_chars);
  check(
      config.convention == Convention::kOriginal || config.convention == Convention::kTransformers,
      "convention", "expected 0..1, got ", static_cast<std::int32_t>(config.convention));
  return config;
}

}  // namespace

struct Speaker::Impl {
  Impl(const RuntimeConfig& the_runtime, const SpeakerConfig& the_config)
      : config(checked(the_config)),
        codec_dir(codec_of(the_runtime)),
        tokenizer(Tokenizer::load(tokenizer_of(the_runtime))),
        settings(read_settings(the_runtime.model_dir)),
        folders(config.voices_dir, the_runtime.model_dir),
        fingerprint(codec_fingerprint(codec_dir)),
        runtime(Runtime::load(the_runtime)) {}

  double frame_rate() const {
    const ModelInfo& info = runtime->info();
    return static_cast<double>(info.sample_rate) / info.samples_per_frame;
  }

  Voice voice(const std::string& name) const;
  std::u32string spoken_text(const std::string& text, const SpeakOptions& options) const;
  std::vector<PromptSpeaker> speakers(const SpeakOptions& options) const;
  std::int32_t max_columns(std::u32string_view text, std::int64_t prompt, double max_seconds) const;
  SamplingParams sampling(const SpeakOptions& options) const;

  const SpeakerConfig config;
  const std::string codec_dir;
  const Tokenizer tokenizer;
  const SpeechSettings settings;
  const VoiceFolders folders;
  const std::string fingerprint;
  const std::unique_ptr<Runtime> runtime;
};

Voice Speaker::Impl::voice(const std::string& name) const {
  const std::string path = folders.path(name);
  Voice voice = read_voice(path);
  check(voice.codec == fingerprint, path.c_str(), "expected codes of codec ",
        fingerprint.substr(0, 12), " (", codec_dir, "), got codes of codec ",
        voice.codec.substr(0, 12), ": add the recording again with this codec");
  const ModelInfo& info = runtime->info();
  const std::int32_t most = *std::ranges::max_element(voice.codes);
  check(voice.num_codebooks == info.num_codebooks && most < info.codebook_vocab - 2, path.c_str(),
        "expected ", info.num_codebooks, " codebooks of codes below ", info.codebook_vocab - 2,
        ", got ", voice.num_codebooks, " with codes up to ", most);
  return voice;
}

// The text as the model is to read it. Throws what SpeakOptions and Speaker::stream promise.
std::u32string Speaker::Impl::spoken_text(const std::string& text,
                                          const SpeakOptions& options) const {
  const std::u32string given = decode_utf8(text, "text");
  check_text(given, "text", static_cast<std::size_t>(config.max_text_chars));
  if (settings.dialogue == "voices") {
    check(speaker_tags(given).empty(), "text",
          "expected no [SPEAKERn] tags: this model knows one voice at a time, so speak each turn "
          "by itself");
  }
  const std::int32_t limit = options.max_turn_chars.value_or(settings.max_turn_chars);
  check(limit >= 0, "max_turn_chars", "expected at least 0, got ", limit);
  check(limit == 0 || given.size() <= static_cast<std::size_t>(limit), "text", "expected at most ",
        limit,
        " characters (max_turn_chars), which this model speaks in one "
        "go, got ",
        given.size(), ": cut the text into sentences");
  if (!options.normalize) return given;
  if (!options.spelled_out) refuse_written_forms(given);
  std::u32string normalized = normalize_text(given);
  refuse_control_tokens(normalized, "text");
  return normalized;
}

std::vector<PromptSpeaker> Speaker::Impl::speakers(const SpeakOptions& options) const {
  check(options.voice.empty() || options.speakers.empty(), "voice, speakers",
        "expected one of them, got both");
  std::vector<SpeakerChoice> choices = options.speakers;
  if (!options.voice.empty()) choices.push_back({options.voice, ""});
  std::vector<PromptSpeaker> out;
  for (const SpeakerChoice& choice : choices) {
    check(choice.voice.empty() != choice.description.empty(), "speakers",
          "expected a voice or a description for each, got ",
          choice.voice.empty() ? "neither" : "both");
    if (!choice.description.empty()) {
      out.emplace_back(Profile{choice.description});
      continue;
    }
    Voice found = voice(choice.voice);
    out.emplace_back(Reference{{std::move(found.codes), found.num_codebooks}, found.transcript});
  }
  return out;
}

// Columns of the asked or estimated seconds, with BOS, EOS and the delay (specification 5).
std::int32_t Speaker::Impl::max_columns(std::u32string_view text, std::int64_t prompt,
                                        double max_seconds) const {
  const std::int64_t extra = runtime->info().num_codebooks + 1;
  const std::int64_t most = runtime->info().max_sequence;
  const std::int64_t room = most - prompt;
  check(room > extra, "text", "expected a prompt of at most ", most - extra - 1,
        " positions (max_sequence), got ", prompt);
  const auto columns = [&](double seconds) {
    return static_cast<std::int64_t>(std::ceil(seconds * frame_rate())) + extra;
  };
  const double limit = static_cast<double>(room - extra) / frame_rate();
  if (max_seconds != 0) {
    check(max_seconds > 0 && max_seconds < kMaxSeconds && max_seconds <= limit, "max_seconds",
          "expected more than 0 and at most ", limit, " beside this prompt (max_sequence), got ",
          max_seconds);
    return static_cast<std::int32_t>(columns(max_seconds));
  }
  const double estimate = estimated_seconds(text);
  const double least = (estimate - kSecondsBase) * kFastest;
  check(limit >= least, "text", "expected room for at least ", least, " s of speech, got ", limit,
        " s beside a prompt of ", prompt, " positions (max_sequence ", most,
        "); max_seconds takes what there is");
  return static_cast<std::int32_t>(std::min(columns(estimate), room));
}

SamplingParams Speaker::Impl::sampling(const SpeakOptions& options) const {
  return {.temperature = options.temperature.value_or(settings.temperature),
          .top_k = options.top_k.value_or(settings.top_k),
          .top_p = options.top_p.value_or(settings.top_p),
          .ras_window = options.ras_window,
          .ras_max_repeat = options.ras_max_repeat,
          .seed = options.seed,
          .rule = options.rule};
}

// --- Speaker ----------------------------------------------------------------------------------

Speaker::Speaker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Speaker::~Speaker() = default;

std::unique_ptr<Speaker> Speaker::load(const RuntimeConfig& runtime, const SpeakerConfig& config) {
  return std::make_unique<Speaker>(std::make_unique<Impl>(runtime, config));
}

Request Speaker::request(const std::string& text, const SpeakOptions& options, bool stream) const {
  const std::u32string spoken = impl_->spoken_text(text, options);
  const PromptOptions prompt{.speakers = impl_->speakers(options),
                             .scene = options.scene,
                             .placement = options.placement,
                             .convention = impl_->config.convention};
  Request request;
  request.prompt = build_prompt(encode_utf8(spoken), prompt, impl_->tokenizer);
  request.sampling = impl_->sampling(options);
  // The estimate is that of the text as it was given, as in Python.
  request.max_columns = impl_->max_columns(decode_utf8(text, "text"), num_positions(request.prompt),
                                           options.max_seconds);
  request.stream = stream;
  request.first_chunk_frames = options.first_chunk_frames;
  request.max_chunk_frames = options.max_chunk_frames;
  request.adapter = options.adapter;
  return request;
}

Stream Speaker::stream(const std::string& text, const SpeakOptions& options) const {
  return impl_->runtime->submit(request(text, options, true));
}

Speech Speaker::speak(const std::string& text, const SpeakOptions& options) const {
  Stream stream = impl_->runtime->submit(request(text, options, false));
  Speech speech;
  speech.sample_rate = impl_->runtime->info().sample_rate;
  Chunk chunk;
  while (stream.next(chunk)) {
    speech.pcm.insert(speech.pcm.end(), chunk.pcm.begin(), chunk.pcm.end());
    speech.finish = chunk.finish;
  }
  if (speech.finish == FinishReason::kCancelled) {
    fail(ErrorCode::kCancelled, "speak", "expected speech, got a cancelled request");
  }
  speech.timing = stream.timing();
  return speech;
}

std::vector<std::string> Speaker::voices() const { return impl_->folders.names(); }
Voice Speaker::voice(const std::string& name) const { return impl_->voice(name); }
const SpeechSettings& Speaker::settings() const { return impl_->settings; }
Runtime& Speaker::runtime() const { return *impl_->runtime; }

}  // namespace higgs_rt
