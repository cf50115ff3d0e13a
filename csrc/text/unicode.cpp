#include "text/unicode.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::uint32_t kLetter = 1;
constexpr std::uint32_t kNumber = 2;
constexpr std::uint32_t kDecimal = 4;
constexpr std::uint32_t kWide = 8;

// Runs of code points with equal properties, in order: first << 4 | properties.
constexpr std::uint32_t kRuns[] = {
#include "text/unicode_table.inc"
};

bool has(char32_t c, std::uint32_t property) {
  const std::uint32_t beyond = (static_cast<std::uint32_t>(c) << 4) | 0xf;
  return (*std::prev(std::upper_bound(std::begin(kRuns), std::end(kRuns), beyond)) & property) != 0;
}

// Bytes of the sequence that begins with `lead`; 0 when none does.
std::size_t sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

// The code point at `at`, of `length` bytes; beyond the last one when it is malformed.
char32_t decode_one(std::string_view text, std::size_t at, std::size_t length) {
  constexpr char32_t kBad = 0x110000;
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  if (length == 0 || at + length > text.size()) return kBad;
  if (length == 1) return byte(0);
  char32_t code = byte(0) & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return kBad;
    code = (code << 6) | (byte(i) & 0x3fU);
  }
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kLeast[length] || surrogate ? kBad : code;
}

}  // namespace

std::u32string decode_utf8(std::string_view text, const std::string& field) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence_length(static_cast<unsigned char>(text[at]));
    const char32_t code = decode_one(text, at, length);
    check(code < 0x110000, field.c_str(), "expected UTF-8, got other bytes at byte ", at);
    out.push_back(code);
    at += length;
  }
  return out;
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  const auto tail = [&](char32_t bits) { out.push_back(static_cast<char>(0x80 | (bits & 0x3f))); };
  for (const char32_t c : text) {
    if (c < 0x80) {
      out.push_back(static_cast<char>(c));
      continue;
    }
    if (c < 0x800) {
      out.push_back(static_cast<char>(0xc0 | (c >> 6)));
    } else {
      if (c < 0x10000) {
        out.push_back(static_cast<char>(0xe0 | (c >> 12)));
      } else {
        out.push_back(static_cast<char>(0xf0 | (c >> 18)));
        tail(c >> 12);
      }
      tail(c >> 6);
    }
    tail(c);
  }
  return out;
}

bool is_letter(char32_t c) { return has(c, kLetter); }
bool is_number(char32_t c) { return has(c, kNumber); }
bool is_decimal(char32_t c) { return has(c, kDecimal); }
bool is_wide(char32_t c) { return has(c, kWide); }

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_text_space(char32_t c) { return is_space(c) || (c >= 0x1c && c <= 0x1f); }

}  // namespace higgs_rt
