#include "text/llama_split.h"

#include <algorithm>

#include "text/unicode.h"

namespace higgs_rt {

namespace {

using Text = std::u32string_view;

bool is_break(char32_t c) { return c == '\r' || c == '\n'; }
bool is_mark(char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); }

// Length of the run at `from` whose characters `belongs`.
template <class Predicate>
std::size_t run(Text text, std::size_t from, Predicate&& belongs) {
  std::size_t end = from;
  while (end < text.size() && belongs(text[end])) ++end;
  return end - from;
}

char32_t lower(char32_t c) {
  if (c == 0x17f) return 's';  // the long s folds to s
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)
std::size_t contraction(Text text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const char32_t first = lower(text[1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (text.size() < 3) return 0;
  const char32_t second = lower(text[2]);
  const bool pair =
      ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
  return pair ? 3 : 0;
}

// [^\r\n\p{L}\p{N}]?\p{L}+
std::size_t word(Text text) {
  const char32_t first = text[0];
  const std::size_t lead = is_break(first) || is_letter(first) || is_number(first) ? 0 : 1;
  const std::size_t letters = run(text, lead, is_letter);
  return letters == 0 ? 0 : lead + letters;
}

// " ?[^\s\p{L}\p{N}]+[\r\n]*"
std::size_t marks(Text text) {
  const std::size_t lead = text[0] == ' ' ? 1 : 0;
  const std::size_t count = run(text, lead, is_mark);
  if (count == 0) return 0;
  return lead + count + run(text, lead + count, is_break);
}

// \s*[\r\n]+|\s+(?!\S)|\s+ with the backtracking that a regular expression does.
std::size_t spaces(Text text) {
  const std::size_t count = run(text, 0, is_space);
  const Text all = text.substr(0, count);
  const auto last_break = std::find_if(all.rbegin(), all.rend(), is_break);
  if (last_break != all.rend()) return static_cast<std::size_t>(all.rend() - last_break);
  return count < text.size() && count > 1 ? count - 1 : count;
}

std::size_t match(Text text) {
  if (const std::size_t length = contraction(text)) return length;
  if (const std::size_t length = word(text)) return length;
  if (is_number(text[0])) return run(text.substr(0, 3), 0, is_number);
  if (const std::size_t length = marks(text)) return length;
  return spaces(text);
}

}  // namespace

std::vector<Text> split_llama(Text text) {
  std::vector<Text> pieces;
  while (!text.empty()) {
    const std::size_t length = match(text);
    pieces.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

}  // namespace higgs_rt
