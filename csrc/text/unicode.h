// UTF-8, and the properties of code points that tokenising and the text rules depend on.
#pragma once

#include <string>
#include <string_view>

namespace higgs_rt {

// Throws kInvalidArgument [field] with the byte at fault unless `text` is well-formed UTF-8
// (no surrogates, no overlong forms).
std::u32string decode_utf8(std::string_view text, const std::string& field);
std::string encode_utf8(std::u32string_view text);

bool is_letter(char32_t c);   // \p{L}
bool is_number(char32_t c);   // \p{N}
bool is_decimal(char32_t c);  // a decimal digit of any script: \d of Python
bool is_wide(char32_t c);     // East Asian width W or F
// White space of Unicode: \s of the tokenizers package.
bool is_space(char32_t c);
// White space of Python's str methods and \s of its re: four control characters more.
bool is_text_space(char32_t c);

}  // namespace higgs_rt
