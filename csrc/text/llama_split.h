// The pre-tokenizer of the Llama-3 family, written out by hand.
#pragma once

#include <string_view>
#include <vector>

namespace higgs_rt {

// The pattern as tokenizer.json spells it.
inline constexpr std::string_view kLlamaPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

// The matches of kLlamaPattern from left to right; together they are `text`.
std::vector<std::u32string_view> split_llama(std::u32string_view text);

}  // namespace higgs_rt
