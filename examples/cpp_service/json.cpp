#include "json.h"

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <stdexcept>

namespace service {

namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::map<std::string, JsonValue> object() {
    std::map<std::string, JsonValue> out;
    expect('{');
    skip_space();
    if (!take('}')) {
      do {
        skip_space();
        std::string key = string();
        expect(':');
        skip_space();
        if (!out.emplace(key, value()).second) refuse("each name once, got " + key + " again");
        skip_space();
      } while (take(','));
      expect('}');
    }
    skip_space();
    if (at_ != text_.size()) refuse("the end");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const {
    throw std::invalid_argument("expected " + expected + " at byte " + std::to_string(at_) +
                                " of the JSON body");
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  void skip_space() {
    while (take(' ') || take('\t') || take('\n') || take('\r')) {
    }
  }
  void expect(char c) {
    skip_space();
    if (!take(c)) refuse(std::string("'") + c + "'");
  }

  JsonValue value() {
    if (peek() == '"') return string();
    if (take_word("true")) return true;
    if (take_word("false")) return false;
    if (take_word("null")) return nullptr;
    double number = 0;
    const char* const first = text_.data() + at_;
    const auto parsed = std::from_chars(first, text_.data() + text_.size(), number);
    const bool begins = peek() == '-' || (peek() >= '0' && peek() <= '9');
    if (!begins || parsed.ec != std::errc{}) refuse("a string, number, true, false or null");
    at_ += static_cast<std::size_t>(parsed.ptr - first);
    return number;
  }

  std::string string() {
    if (!take('"')) refuse("a string");
    std::string out;
    while (true) {
      if (at_ == text_.size() || static_cast<unsigned char>(peek()) < 0x20) refuse("'\"'");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (c != '\\') {
        out.push_back(c);
      } else {
        escape(out);
      }
    }
  }

  void escape(std::string& out) {
    constexpr std::string_view kCodes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      std::uint32_t code = hex();
      if (code >= 0xd800 && code < 0xdc00 && take_word("\\u")) {
        const std::uint32_t low = hex();
        if (low < 0xdc00 || low > 0xdfff) refuse("the second half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      }
      if (code >= 0xd800 && code < 0xe000) refuse("both halves of a surrogate pair");
      append_utf8(out, code);
      return;
    }
    const std::size_t which = peek() == '\0' ? std::string_view::npos : kCodes.find(peek());
    if (which == std::string_view::npos) refuse("an escape");
    out.push_back(kMeanings[which]);
    ++at_;
  }

  std::uint32_t hex() {
    const std::string_view digits = text_.substr(at_, 4);
    std::uint32_t code = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || parsed.ptr != digits.data() + 4) refuse("four hexadecimal digits");
    at_ += 4;
    return code;
  }

  static void append_utf8(std::string& out, std::uint32_t code) {
    const auto tail = [&](int shift) {
      out.push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3f)));
    };
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out.push_back(static_cast<char>(0xc0 | (code >> 6)));
      tail(0);
    } else if (code < 0x10000) {
      out.push_back(static_cast<char>(0xe0 | (code >> 12)));
      tail(6);
      tail(0);
    } else {
      out.push_back(static_cast<char>(0xf0 | (code >> 18)));
      tail(12);
      tail(6);
      tail(0);
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// Bytes of the character that `text` (not empty) begins with; 0 where it is not UTF-8.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return 0;
  std::uint32_t code = first & (0xffu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  const std::uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < least || code > 0x10ffff || surrogate ? 0 : length;
}

}  // namespace

std::map<std::string, JsonValue> parse_json_object(std::string_view text) {
  return Parser(text).object();
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const char c = text.front();
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      out += "\\ufffd";  // what a client sent may come back in an error
    } else if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + "\"";
}

}  // namespace service
