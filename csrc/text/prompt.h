// From a text and its speakers to the segments of a request (specification 4.2).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "higgs_rt/speaker.h"
#include "text/chatml.h"

namespace higgs_rt {

// A recording to imitate: its codes and what is said in it.
struct Reference {
  AudioClip clip;
  std::string transcript;
};
// A speaker described in words, e.g. "feminine".
struct Profile {
  std::string description;
};
using PromptSpeaker = std::variant<Reference, Profile>;

struct PromptOptions {
  std::vector<PromptSpeaker> speakers;  // SPEAKER0, SPEAKER1, …
  std::string scene;                    // empty: none
  Placement placement = Placement::kTurns;
  Convention convention = Convention::kOriginal;
};

// Most characters of a transcript, scene or description.
inline constexpr std::size_t kMaxPartChars = 5000;

// Messages that ask for `text`. A speaker in words implies the system message for all.
std::vector<Message> speech_messages(const std::string& text, const PromptOptions& options);

// The whole prompt, ending with <|audio_out_bos|>. Checks scene, transcripts and descriptions, and
// throws kInvalidArgument that names the field; `text` is taken as it is.
std::vector<PromptSegment> build_prompt(const std::string& text, const PromptOptions& options,
                                        const Tokenizer& tokenizer);

// Sequence positions of a prompt.
std::int64_t num_positions(const std::vector<PromptSegment>& segments);

}  // namespace higgs_rt
