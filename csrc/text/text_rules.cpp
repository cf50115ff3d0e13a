#include "text/text_rules.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "core/check.h"
#include "text/unicode.h"

namespace higgs_rt {

namespace {

using Text = std::u32string_view;

constexpr std::pair<char32_t, Text> kPunctuation[] = {
    {U'，', U", "}, {U'。', U"."}, {U'：', U":"},  {U'；', U";"},  {U'？', U"?"},  {U'！', U"!"},
    {U'（', U" "},  {U'）', U" "}, {U'【', U"["},  {U'】', U"]"},  {U'《', U"<"},  {U'》', U">"},
    {U'“', U"\""},  {U'”', U"\""}, {U'‘', U"'"},   {U'’', U"'"},   {U'、', U","},  {U'—', U"-"},
    {U'…', U"..."}, {U'·', U"."},  {U'「', U"\""}, {U'」', U"\""}, {U'『', U"\""}, {U'』', U"\""},
    {U'(', U" "},   {U')', U" "}};
// Units, then sound events, in this order.
constexpr std::pair<Text, Text> kReplacements[] = {{U"°F", U" degrees Fahrenheit"},
                                                   {U"°C", U" degrees Celsius"},
                                                   {U"[laugh]", U"<SE>[Laughter]</SE>"},
                                                   {U"[humming start]", U"<SE_s>[Humming]</SE_s>"},
                                                   {U"[humming end]", U"<SE_e>[Humming]</SE_e>"},
                                                   {U"[music start]", U"<SE_s>[Music]</SE_s>"},
                                                   {U"[music end]", U"<SE_e>[Music]</SE_e>"},
                                                   {U"[music]", U"<SE>[Music]</SE>"},
                                                   {U"[sing start]", U"<SE_s>[Singing]</SE_s>"},
                                                   {U"[sing end]", U"<SE_e>[Singing]</SE_e>"},
                                                   {U"[applause]", U"<SE>[Applause]</SE>"},
                                                   {U"[cheering]", U"<SE>[Cheering]</SE>"},
                                                   {U"[cough]", U"<SE>[Cough]</SE>"}};
constexpr Text kSentenceEnds[] = {U".", U"!", U"?", U",", U";", U"\"", U"'", U"</SE_e>", U"</SE>"};
constexpr Text kAbbreviations[] = {U"Mr.", U"Mrs.", U"Ms.",  U"Dr.", U"Prof.",   U"Jr.",
                                   U"Sr.", U"e.g.", U"i.e.", U"vs.", U"approx.", U"etc."};
constexpr double kSecondsPerChar = 0.2;
// A Chinese, Japanese or Korean character is a syllable or more.
constexpr double kSecondsPerWideChar = 0.6;

// Length of the tag [SPEAKERn], n of up to four digits, at the beginning of `text`; 0 when there is
// none.
std::size_t tag_length(Text text) {
  constexpr std::size_t kMostDigits = 4;
  constexpr Text kBegin = U"[SPEAKER";
  if (!text.starts_with(kBegin)) return 0;
  std::size_t end = kBegin.size();
  while (end < text.size() && is_decimal(text[end])) ++end;
  const std::size_t digits = end - kBegin.size();
  const bool closed = end < text.size() && text[end] == ']';
  return closed && digits >= 1 && digits <= kMostDigits ? end + 1 : 0;
}

// Calls `use` with each tag, brackets included, and returns the text with spaces for them.
template <class Use>
std::u32string without_tags(Text text, Use&& use) {
  std::u32string rest;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = tag_length(text.substr(at));
    if (length == 0) {
      rest.push_back(text[at++]);
    } else {
      use(text.substr(at, length));
      rest.push_back(' ');
      at += length;
    }
  }
  return rest;
}

bool is_alphanumeric(char32_t c) { return is_letter(c) || is_number(c); }

Text stripped(Text text) {
  while (!text.empty() && is_text_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_text_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string shown(Text text) {
  constexpr std::size_t kMost = 40;
  const Text kept = stripped(text);
  std::string out = encode_utf8(kept.substr(0, kMost));
  if (kept.size() > kMost) out += "…";
  return out;
}

void replace_all(std::u32string& text, Text written, Text spoken) {
  for (std::size_t at = 0; (at = text.find(written, at)) != std::u32string::npos;) {
    text.replace(at, written.size(), spoken);
    at += spoken.size();
  }
}

std::u32string translated(Text text) {
  std::u32string out;
  for (const char32_t c : text) {
    const auto* const found =
        std::ranges::find(kPunctuation, c, [](auto& one) { return one.first; });
    if (found == std::end(kPunctuation)) {
      out.push_back(c);
    } else {
      out += found->second;
    }
  }
  return out;
}

// Single spaces within each line, no blank lines, none at the ends.
std::u32string tidied(Text text) {
  std::u32string out;
  for (const char32_t c : text) {
    const bool at_line_begin = out.empty() || out.back() == '\n';
    if (!is_text_space(c)) {
      out.push_back(c);
    } else if (c == '\n') {
      if (!out.empty() && out.back() == ' ') out.pop_back();
      if (!out.empty() && out.back() != '\n') out.push_back('\n');
    } else if (!at_line_begin && out.back() != ' ') {
      out.push_back(' ');
    }
  }
  return std::u32string(stripped(out));
}

// Length of a control token <|…|> at the beginning of `text`; 0 when there is none.
std::size_t control_length(Text text) {
  if (!text.starts_with(U"<|")) return 0;
  std::size_t end = 2;
  while (end < text.size() && text[end] != '<' && text[end] != '>' && text[end] != '|' &&
         !is_text_space(text[end])) {
    ++end;
  }
  return end > 2 && text.substr(end).starts_with(U"|>") ? end + 2 : 0;
}

// Written in Chinese characters alone, as far as scripts tell.
bool is_chinese(Text text) {
  const auto in = [&](char32_t low, char32_t high) {
    return std::ranges::any_of(text, [=](char32_t c) { return c >= low && c <= high; });
  };
  const bool other = in(0x3040, 0x30ff) || in(0xac00, 0xd7af) || in(0x1100, 0x11ff);
  return !other && in(0x3400, 0x9fff);
}

bool is_ascii_word(char32_t c) { return c < 0x80 && (is_alphanumeric(c) || c == '_'); }

// The first thing that may be put into words; empty when there is none.
Text written_form(Text text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (is_decimal(text[at]) || text[at] == '&' || text[at] == '%') return text.substr(at, 1);
    if (at > 0 && is_ascii_word(text[at - 1])) continue;
    for (const Text abbreviation : kAbbreviations) {
      if (text.substr(at).starts_with(abbreviation)) return abbreviation;
    }
  }
  return {};
}

}  // namespace

void check_text(Text text, const std::string& field, std::size_t max_chars) {
  const char* where = field.c_str();
  check(!text.empty(), where, "expected at least one word, got an empty string");
  check(text.size() <= max_chars, where, "expected at most ", max_chars, " characters, got ",
        text.size());
  check(!stripped(text).empty(), where, "expected at least one word, got only white space");
  refuse_control_tokens(text, field);
  const std::u32string words = without_tags(text, [](Text) {});
  check(std::ranges::any_of(words, is_alphanumeric), where,
        "expected at least one letter or digit, got ", shown(text));
}

void refuse_control_tokens(Text text, const std::string& field) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const std::size_t length = control_length(text.substr(at));
    check(length == 0, field.c_str(), "expected no control tokens of the prompt format, got ",
          encode_utf8(text.substr(at, length)));
  }
}

void refuse_written_forms(Text text) {
  if (is_chinese(text)) return;
  const std::u32string words = without_tags(text, [](Text) {});
  const Text found = written_form(words);
  if (found.empty()) return;
  fail(ErrorCode::kUnsupported, "text",
       "expected numbers, symbols and abbreviations spelled out (or the option spelled_out, which "
       "takes the text as it is), got '",
       encode_utf8(found), "'");
}

std::u32string normalize_text(Text text) {
  std::u32string out = translated(stripped(text));
  for (const auto& [written, spoken] : kReplacements) replace_all(out, written, spoken);
  out = tidied(out);
  const bool ended =
      std::ranges::any_of(kSentenceEnds, [&](Text end) { return out.ends_with(end); });
  return ended ? out : out + U".";
}

std::vector<std::u32string> speaker_tags(Text text) {
  std::set<std::u32string> tags;
  without_tags(text, [&](Text tag) { tags.emplace(tag.substr(1, tag.size() - 2)); });
  return {tags.begin(), tags.end()};
}

double estimated_seconds(Text text) {
  const auto wide = static_cast<double>(std::ranges::count_if(text, is_wide));
  const double narrow = static_cast<double>(text.size()) - wide;
  return kSecondsBase + kSecondsPerChar * narrow + kSecondsPerWideChar * wide;
}

}  // namespace higgs_rt
