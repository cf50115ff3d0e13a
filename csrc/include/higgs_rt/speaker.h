// From text to speech: a Runtime with the model's tokenizer, prompts and voices.
//
//   auto speaker = higgs_rt::Speaker::load({.model_dir = "model"});
//   higgs_rt::Stream stream = speaker->stream("The sun rises in the east.", {.voice = "slt"});
//   higgs_rt::Chunk chunk;
//   while (stream.next(chunk)) play(chunk.pcm);
//
// Texts and names are UTF-8. Every function may be called from any thread; about fork(), see
// runtime.h. A text is spoken in one go: cut a longer one into sentences.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "higgs_rt/error.h"
#include "higgs_rt/runtime.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

// Where the codes of reference recordings stand in a prompt.
enum class Placement : std::int32_t {
  kTurns = 0,   // as earlier turns, with their transcripts
  kSystem = 1,  // in the system message, without
};

// How a conversation is written out as tokens.
enum class Convention : std::int32_t {
  kOriginal = 0,
  kTransformers = 1,  // the chat template of transformers
};

struct SpeakerConfig {
  // Voice files (docs/voices.md). Empty: $HIGGS_RT_VOICES, or else higgs_rt/voices in the user's
  // folder for data. Behind it are the voices in <model_dir>/voices.
  std::string voices_dir = {};
  Convention convention = Convention::kOriginal;
  std::int32_t max_text_chars = 200000;  // of one text
};

// What a model says of itself in higgs_rt.json beside its config.json.
struct SpeechSettings {
  std::int32_t max_turn_chars = 400;  // characters, after normalisation, that it speaks in one go
  std::int32_t context_turns = 2;     // for callers that speak a long text turn by turn
  std::string dialogue = "tags";      // "voices": it knows one reference and no [SPEAKERn] tags
  float temperature = 0.7f;
  std::int32_t top_k = 0;
  float top_p = 0.95f;
};

// A reference recording, encoded once.
struct Voice {
  std::string name;
  std::vector<std::int32_t> codes;  // [num_codebooks, num_frames], without BOS, EOS and delay
  std::int32_t num_codebooks = 0;
  std::int32_t num_frames = 0;
  std::string transcript;
  std::string codec;  // fingerprint of the codec that made the codes
  std::int32_t sample_rate = 0;
  std::int32_t samples_per_frame = 0;
};

// One speaker of a dialogue: a stored voice by name, or a description in words ("feminine").
struct SpeakerChoice {
  std::string voice = {};
  std::string description = {};
};

struct SpeakOptions {
  std::string voice = {};  // name of a stored voice; empty: the model's own choice
  // In place of `voice`: SPEAKER0, SPEAKER1, … of the tags.
  std::vector<SpeakerChoice> speakers = {};
  std::string scene = {};  // where it is recorded, or how it sounds
  Placement placement = Placement::kTurns;
  // Punctuation, units and sound events as the model knows them. Numbers and abbreviations, which
  // Python spells out, are refused (kUnsupported) unless `spelled_out`, which takes them as they
  // are; so does normalize = false.
  bool normalize = true;
  bool spelled_out = false;
  // Absent: the model's own settings.
  std::optional<float> temperature = {};
  std::optional<std::int32_t> top_k = {};
  std::optional<float> top_p = {};
  std::optional<std::int32_t> max_turn_chars = {};  // 0: no limit
  std::int32_t ras_window = 7;
  std::int32_t ras_max_repeat = 2;
  std::uint64_t seed = 0;  // same seed, same request, same engine: same speech
  StreamRule rule = StreamRule::kFirstEos;
  double max_seconds = 0;  // of speech; 0: a generous estimate from the text
  std::int32_t first_chunk_frames = 8;
  std::int32_t max_chunk_frames = 64;
  std::string adapter = {};  // one of RuntimeConfig::adapters by its name; empty: none
};

struct Speech {
  std::vector<float> pcm;  // mono in [-1, 1]
  std::int32_t sample_rate = 0;
  FinishReason finish = FinishReason::kNone;  // kStop or kLength
  RequestTiming timing;
};

class Speaker {
 public:
  // Loads model, codec, tokenizer.json and settings. Throws Error that names the file and what is
  // wrong with it: kUnsupported for a tokenizer.json of a kind that this library does not know.
  static std::unique_ptr<Speaker> load(const RuntimeConfig& runtime,
                                       const SpeakerConfig& config = {});
  ~Speaker();  // shuts the runtime down

  // Queues the request and returns at once; chunks arrive while it runs. Throws Error that names
  // the field: kInvalidArgument, kUnsupported (see SpeakOptions::normalize), kNotFound (a voice),
  // kResourceExhausted (queue full), kUnavailable (shut down).
  Stream stream(const std::string& text, const SpeakOptions& options = {}) const;
  // The same, waiting for all of it. kCancelled when the runtime was shut down meanwhile.
  Speech speak(const std::string& text, const SpeakOptions& options = {}) const;
  // What stream() and speak() submit, for callers that change more of it.
  Request request(const std::string& text, const SpeakOptions& options, bool stream) const;

  std::vector<std::string> voices() const;  // names, sorted
  // kNotFound, or kInvalidArgument that names the file and the fault; also for codes of another
  // codec.
  Voice voice(const std::string& name) const;

  const SpeechSettings& settings() const;
  Runtime& runtime() const;

  struct Impl;
  explicit Speaker(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace higgs_rt
