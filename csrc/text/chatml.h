// Messages and their rendering (specification 4.1 and 4.3).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "higgs_rt/types.h"
#include "text/tokenizer.h"

namespace higgs_rt {

// Codes [num_codebooks, num_frames] row-major, without BOS, EOS and delay.
struct AudioClip {
  std::vector<std::int32_t> codes;
  std::int32_t num_codebooks = 0;
};

// A literal text (UTF-8), tokenised on its own, or a clip.
using Piece = std::variant<std::string, AudioClip>;

enum class Role { kSystem, kScene, kUser, kAssistant };  // kScene: transformers' convention only

struct Message {
  Role role = Role::kUser;
  std::vector<Piece> parts;
};

// Pieces of a conversation, followed by the header of the assistant's spoken answer.
std::vector<Piece> render_original(const std::vector<Message>& messages);
// The same as transformers' chat template renders it: system [scene] (user | assistant)*. Texts are
// trimmed, and neighbouring literals are one piece, since all is tokenised in one go there.
std::vector<Piece> render_transformers(const std::vector<Message>& messages);

// Prompt segments; the ids of neighbouring literals become one text segment.
std::vector<PromptSegment> encode_pieces(const std::vector<Piece>& pieces,
                                         const Tokenizer& tokenizer);

}  // namespace higgs_rt
