// What a text must be like before it becomes a prompt, and its normalisation (specification 4.6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace higgs_rt {

// Throws kInvalidArgument [field] unless `text` can be spoken: at most max_chars characters, with
// a letter or digit besides speaker tags, and without control tokens, which would forge the
// prompt's structure.
void check_text(std::u32string_view text, const std::string& field, std::size_t max_chars);

// Throws kInvalidArgument [field] when `text` holds a control token. Ask again after
// normalisation: it makes ASCII of other brackets, so it can make a token.
void refuse_control_tokens(std::u32string_view text, const std::string& field);

// Throws kUnsupported [text] for what Python's spell_out may put into words: digits (but not those
// of speaker tags), "&", "%", and abbreviations like "Dr.". Text that passes is text that spell_out
// leaves alone. Chinese text passes as it does there.
void refuse_written_forms(std::u32string_view text);

// Maps punctuation to ASCII, names units and sound events, tidies white space, ends the sentence.
// Line breaks are kept (they separate the turns of a dialogue), blank lines are not.
std::u32string normalize_text(std::u32string_view text);

// Distinct speakers of the tags [SPEAKERn], sorted as strings: "SPEAKER0", "SPEAKER1", …
std::vector<std::u32string> speaker_tags(std::u32string_view text);

// A generous upper bound of the seconds that `text` takes to say.
double estimated_seconds(std::u32string_view text);

// The part of estimated_seconds() that every text has, and the share of the rest that nobody speaks
// faster than (25 characters a second).
inline constexpr double kSecondsBase = 5.0;
inline constexpr double kFastest = 0.2;

}  // namespace higgs_rt
