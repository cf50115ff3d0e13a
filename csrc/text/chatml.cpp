#include "text/chatml.h"

#include "core/check.h"
#include "text/unicode.h"

namespace higgs_rt {

namespace {

std::string join(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out += part;
  return out;
}

std::string_view role_name(Role role) {
  constexpr std::string_view kNames[] = {"system", "scene", "user", "assistant"};
  return kNames[static_cast<std::size_t>(role)];
}

std::string header(Role role) {
  return join({token::kStartHeader, role_name(role), token::kEndHeader, "\n\n"});
}

// A clip between its brackets; `begin` says whether it was heard or spoken.
void add_clip(std::vector<Piece>& pieces, const Piece& clip, std::string_view begin) {
  pieces.emplace_back(std::string(begin));
  pieces.push_back(clip);
  pieces.emplace_back(std::string(token::kAudioEos));
}

bool is_clip(const Piece& piece) { return std::holds_alternative<AudioClip>(piece); }

std::string trimmed(const Piece& piece) {
  const std::u32string text = decode_utf8(std::get<std::string>(piece), "text");
  std::u32string_view kept = text;
  while (!kept.empty() && is_text_space(kept.front())) kept.remove_prefix(1);
  while (!kept.empty() && is_text_space(kept.back())) kept.remove_suffix(1);
  return encode_utf8(kept);
}

// The scene block. A first text is a description: a blank line follows it. A later text is followed
// by a line break unless a clip comes next, which brings its own space.
void add_scene(std::vector<Piece>& pieces, const std::vector<Piece>& parts) {
  pieces.emplace_back(join({"\n\n", token::kSceneStart, "\n"}));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    if (is_clip(parts[i])) {
      pieces.emplace_back(" ");
      add_clip(pieces, parts[i], token::kAudioOutBos);
      if (!last) pieces.emplace_back("\n");
      continue;
    }
    pieces.emplace_back(trimmed(parts[i]));
    if (last) continue;
    if (i == 0) {
      pieces.emplace_back("\n\n");
    } else if (!is_clip(parts[i + 1])) {
      pieces.emplace_back("\n");
    }
  }
  pieces.emplace_back(join({"\n", token::kSceneEnd}));
}

std::vector<Piece> joined_literals(const std::vector<Piece>& pieces) {
  std::vector<Piece> out;
  for (const Piece& piece : pieces) {
    if (!is_clip(piece) && !out.empty() && !is_clip(out.back())) {
      std::get<std::string>(out.back()) += std::get<std::string>(piece);
    } else {
      out.push_back(piece);
    }
  }
  return out;
}

}  // namespace

std::vector<Piece> render_original(const std::vector<Message>& messages) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    check_internal(message.role != Role::kScene, "prompt", "expected no scene message");
    pieces.emplace_back((i == 0 ? std::string(token::kBeginOfText) : "") + header(message.role));
    const bool spoken = message.role == Role::kAssistant;
    for (const Piece& part : message.parts) {
      if (is_clip(part)) {
        add_clip(pieces, part, spoken ? token::kAudioOutBos : token::kAudioBos);
      } else {
        pieces.push_back(part);
      }
    }
    // A run of assistant messages is one turn.
    const bool goes_on =
        spoken && i + 1 < messages.size() && messages[i + 1].role == Role::kAssistant;
    pieces.emplace_back(std::string(goes_on ? token::kEndOfMessage : token::kEndOfTurn));
  }
  pieces.emplace_back(header(Role::kAssistant));
  pieces.emplace_back(std::string(token::kAudioOutBos));
  return pieces;
}

std::vector<Piece> render_transformers(const std::vector<Message>& messages) {
  check_internal(!messages.empty() && messages[0].role == Role::kSystem, "prompt",
                 "expected a system message first");
  std::vector<Piece> pieces;
  pieces.emplace_back(join({token::kBeginOfText, header(Role::kSystem)}));
  pieces.emplace_back(trimmed(messages[0].parts.at(0)));
  std::size_t i = 1;
  if (i < messages.size() && messages[i].role == Role::kScene) {
    add_scene(pieces, messages[i++].parts);
  }
  pieces.emplace_back(std::string(token::kEndOfTurn));
  for (; i < messages.size(); ++i) {
    pieces.emplace_back(header(messages[i].role));
    for (const Piece& part : messages[i].parts) {
      if (is_clip(part)) {
        add_clip(pieces, part, token::kAudioOutBos);
      } else {
        pieces.emplace_back(trimmed(part));
      }
    }
    pieces.emplace_back(std::string(token::kEndOfTurn));
  }
  pieces.emplace_back(header(Role::kAssistant));
  pieces.emplace_back(std::string(token::kAudioOutBos));
  return joined_literals(pieces);
}

std::vector<PromptSegment> encode_pieces(const std::vector<Piece>& pieces,
                                         const Tokenizer& tokenizer) {
  std::vector<PromptSegment> segments;
  for (const Piece& piece : pieces) {
    if (is_clip(piece)) {
      const auto& clip = std::get<AudioClip>(piece);
      segments.push_back({.kind = PromptSegment::Kind::kAudio,
                          .ids = clip.codes,
                          .rows = {},
                          .model_axis = clip.num_codebooks});
      continue;
    }
    if (segments.empty() || segments.back().kind != PromptSegment::Kind::kText) {
      segments.emplace_back();
    }
    const std::vector<std::int32_t> ids = tokenizer.encode(std::get<std::string>(piece));
    segments.back().ids.insert(segments.back().ids.end(), ids.begin(), ids.end());
  }
  return segments;
}

}  // namespace higgs_rt
