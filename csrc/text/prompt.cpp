#include "text/prompt.h"

#include <algorithm>

#include "text/text_rules.h"
#include "text/unicode.h"

namespace higgs_rt {

namespace {

constexpr std::string_view kInstruction = "Generate audio following instruction.";
constexpr std::string_view kDefaultScene = "Audio is recorded from a quiet room.";
constexpr std::string_view kMultispeakerInstruction =
    "You are an AI assistant designed to convert text into speech.\n"
    "If the user's message includes a [SPEAKER*] tag, do not read out the tag and generate speech "
    "for the following text, using the specified voice.\n"
    "If no speaker tag is present, select a suitable voice on your own.";

bool is_reference(const PromptSpeaker& speaker) {
  return std::holds_alternative<Reference>(speaker);
}

std::string scene_begin() { return "\n\n" + std::string(token::kSceneStart) + "\n"; }

// One text up to each clip: what lies between clips is tokenised as a whole.
std::vector<Piece> described(std::string text, const PromptOptions& options,
                             const std::vector<std::string>& names) {
  std::vector<Piece> parts;
  text += scene_begin();
  if (!options.scene.empty()) text += options.scene + "\n\n";
  for (std::size_t i = 0; i < options.speakers.size(); ++i) {
    text += names[i] + ": ";
    if (const auto* profile = std::get_if<Profile>(&options.speakers[i])) {
      text += profile->description + "\n";
    } else {
      parts.emplace_back(std::move(text));
      parts.emplace_back(std::get<Reference>(options.speakers[i]).clip);
      text.assign(1, '\n');
    }
  }
  parts.emplace_back(text + std::string(token::kSceneEnd));
  return parts;
}

// The template puts a blank line after its first text. That suits a description, so speakers in
// words stay one text, and references without a scene get the default one (specification 4.3).
std::vector<Piece> scene_parts(const PromptOptions& options,
                               const std::vector<std::string>& names) {
  std::vector<Piece> parts;
  if (!options.scene.empty()) {
    parts.emplace_back(options.scene);
  } else if (std::ranges::any_of(options.speakers, is_reference)) {
    parts.emplace_back(std::string(kDefaultScene));
  }
  std::string lines;
  const auto end_lines = [&] {
    if (!lines.empty()) parts.emplace_back(std::exchange(lines, ""));
  };
  for (std::size_t i = 0; i < options.speakers.size(); ++i) {
    if (const auto* profile = std::get_if<Profile>(&options.speakers[i])) {
      lines += (lines.empty() ? "" : "\n") + names[i] + ": " + profile->description;
      continue;
    }
    end_lines();
    parts.emplace_back(names[i] + ":");
    parts.emplace_back(std::get<Reference>(options.speakers[i]).clip);
  }
  end_lines();
  return parts;
}

// The system message, and in the transformers convention the scene message. `names` empty:
// SPEAKER0, SPEAKER1, …
std::vector<Message> system_messages(std::string_view instruction, const PromptOptions& options,
                                     std::vector<std::string> names = {}) {
  for (std::size_t i = names.size(); i < options.speakers.size(); ++i) {
    names.push_back("SPEAKER" + std::to_string(i));
  }
  std::string text(instruction);
  if (options.convention == Convention::kTransformers) {
    std::vector<Message> messages = {{Role::kSystem, {text}}};
    std::vector<Piece> parts = scene_parts(options, names);
    if (!parts.empty()) messages.push_back({Role::kScene, std::move(parts)});
    return messages;
  }
  if (!options.speakers.empty()) return {{Role::kSystem, described(text, options, names)}};
  if (!options.scene.empty()) {
    text += scene_begin() + options.scene + "\n" + std::string(token::kSceneEnd);
  }
  return {{Role::kSystem, {text}}};
}

std::vector<Message> clone_by_turns(const PromptOptions& options) {
  std::vector<Message> messages;
  // The original has no system message here unless a scene is given; the template demands one.
  if (!options.scene.empty() || options.convention == Convention::kTransformers) {
    PromptOptions alone = options;
    alone.speakers.clear();
    messages = system_messages(kInstruction, alone);
  }
  for (std::size_t i = 0; i < options.speakers.size(); ++i) {
    const auto& reference = std::get<Reference>(options.speakers[i]);
    const bool tagged = options.speakers.size() > 1;
    std::string words;
    if (tagged) words.append("[SPEAKER").append(std::to_string(i)).append("] ");
    messages.push_back({Role::kUser, {words.append(reference.transcript)}});
    messages.push_back({Role::kAssistant, {reference.clip}});
  }
  return messages;
}

// Several tagged speakers without a reference: voices in turn, feminine and masculine.
PromptOptions with_alternating_voices(const PromptOptions& options, std::size_t count) {
  PromptOptions out = options;
  for (std::size_t i = 0; i < count; ++i) {
    out.speakers.emplace_back(Profile{i % 2 == 0 ? "feminine" : "masculine"});
  }
  return out;
}

void check_part(const std::string& text, const std::string& field) {
  check_text(decode_utf8(text, field), field, kMaxPartChars);
}

void check_parts(const PromptOptions& options) {
  if (!options.scene.empty()) check_part(options.scene, "scene");
  for (std::size_t i = 0; i < options.speakers.size(); ++i) {
    const std::string of = " of speaker " + std::to_string(i);
    if (const auto* profile = std::get_if<Profile>(&options.speakers[i])) {
      check_part(profile->description, "description" + of);
    } else {
      check_part(std::get<Reference>(options.speakers[i]).transcript, "transcript" + of);
    }
  }
}

}  // namespace

std::vector<Message> speech_messages(const std::string& text, const PromptOptions& options) {
  const bool by_turns =
      options.placement == Placement::kTurns && std::ranges::all_of(options.speakers, is_reference);
  std::vector<Message> messages;
  if (!options.speakers.empty() && by_turns) {
    messages = clone_by_turns(options);
  } else {
    std::vector<std::string> names;
    if (options.speakers.empty()) {
      for (const auto& tag : speaker_tags(decode_utf8(text, "text"))) {
        names.push_back(encode_utf8(tag));
      }
    }
    messages = names.size() > 1
                   ? system_messages(kMultispeakerInstruction,
                                     with_alternating_voices(options, names.size()), names)
                   : system_messages(kInstruction, options);
  }
  messages.push_back({Role::kUser, {text}});
  return messages;
}

std::vector<PromptSegment> build_prompt(const std::string& text, const PromptOptions& options,
                                        const Tokenizer& tokenizer) {
  check_parts(options);
  const std::vector<Message> messages = speech_messages(text, options);
  return encode_pieces(options.convention == Convention::kOriginal ? render_original(messages)
                                                                   : render_transformers(messages),
                       tokenizer);
}

std::int64_t num_positions(const std::vector<PromptSegment>& segments) {
  std::int64_t count = 0;
  for (const PromptSegment& segment : segments) {
    const auto ids = static_cast<std::int64_t>(segment.ids.size());
    const std::int64_t books = segment.model_axis;
    // Delayed columns of a clip, BOS and EOS included (specification 4.5).
    count += segment.kind == PromptSegment::Kind::kAudio ? ids / books + books + 1 : ids;
  }
  return count;
}

}  // namespace higgs_rt
