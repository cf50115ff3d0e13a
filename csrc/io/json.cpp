#include "io/json.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr int kMaxDepth = 64;

void append_utf8(std::string& out, std::uint32_t code) {
  const auto byte = [&](std::uint32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | (code >> 6));
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3f));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

}  // namespace

class JsonParser {
 public:
  JsonParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json parse() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) error("the end");
    return value;
  }

 private:
  [[noreturn]] void error(const char* expected) const {
    if (at_ >= text_.size()) {
      fail(ErrorCode::kInvalidArgument, where_.c_str(), "expected ", expected,
           ", got the end at byte ", text_.size());
    }
    fail(ErrorCode::kInvalidArgument, where_.c_str(), "expected ", expected, " at byte ", at_,
         ", got byte value ", static_cast<int>(static_cast<unsigned char>(text_[at_])));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json parse_value(int depth) {
    if (depth > kMaxDepth) error("at most 64 nested arrays and objects");
    skip_space();
    Json value;
    if (take('{')) {
      parse_object(value, depth);
    } else if (take('[')) {
      parse_array(value, depth);
    } else if (take('"')) {
      value.type_ = Json::Type::kString;
      value.string_ = parse_string();
    } else if (peek() == 't' || peek() == 'f') {
      value.type_ = Json::Type::kBool;
      value.integer_ = peek() == 't';
      if (!take_word("true") && !take_word("false")) error("a value");
    } else if (!take_word("null")) {
      parse_number(value);
    }
    return value;
  }

  void parse_object(Json& value, int depth) {
    value.type_ = Json::Type::kObject;
    std::set<std::string> seen;
    skip_space();
    if (take('}')) return;
    do {
      skip_space();
      if (!take('"')) error("a string as key");
      std::string key = parse_string();
      if (!seen.insert(key).second) {
        fail(ErrorCode::kInvalidArgument, where_.c_str(), "expected each key once, got \"", key,
             "\" again at byte ", at_);
      }
      skip_space();
      if (!take(':')) error("':'");
      value.items_.push_back(parse_value(depth + 1));
      value.keys_.push_back(std::move(key));
      skip_space();
    } while (take(','));
    if (!take('}')) error("',' or '}'");
  }

  void parse_array(Json& value, int depth) {
    value.type_ = Json::Type::kArray;
    skip_space();
    if (take(']')) return;
    do {
      value.items_.push_back(parse_value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) error("',' or ']'");
  }

  // After the opening quote.
  std::string parse_string() {
    std::string out;
    while (true) {
      if (at_ >= text_.size()) error("'\"'");
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) error("no control character in a string");
      ++at_;
      if (c == '"') return out;
      if (c == '\\') {
        parse_escape(out);
      } else {
        out.push_back(c);
      }
    }
  }

  void parse_escape(std::string& out) {
    constexpr std::string_view kCodes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      std::uint32_t code = parse_hex();
      if (code >= 0xd800 && code < 0xdc00) {
        if (!take_word("\\u")) error("the second half of a surrogate pair");
        const std::uint32_t low = parse_hex();
        if (low < 0xdc00 || low > 0xdfff) error("the second half of a surrogate pair before");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      } else if (code >= 0xdc00 && code <= 0xdfff) {
        error("no lone second half of a surrogate pair before");
      }
      append_utf8(out, code);
      return;
    }
    const std::size_t which = at_ < text_.size() ? kCodes.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) error("an escape");
    out.push_back(kMeanings[which]);
    ++at_;
  }

  std::uint32_t parse_hex() {
    std::uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || end.ptr != digits.data() + 4) error("four hexadecimal digits");
    at_ += 4;
    return code;
  }

  std::size_t take_digits() {
    const std::size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ - begin;
  }

  void parse_number(Json& value) {
    const std::size_t begin = at_;
    take('-');
    const bool zero = peek() == '0';
    const std::size_t digits = take_digits();
    if (digits == 0) error("a value");
    if (zero && digits > 1) error("no leading zero before");
    bool whole = true;
    if (take('.')) {
      whole = false;
      if (take_digits() == 0) error("a digit");
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false;
      ++at_;
      if (!take('+')) take('-');
      if (take_digits() == 0) error("a digit");
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    if (std::from_chars(first, last, value.number_).ec != std::errc{}) {
      error("a number within fp64 before");
    }
    const bool fits = whole && std::from_chars(first, last, value.integer_).ec == std::errc{};
    value.type_ = fits ? Json::Type::kInteger : Json::Type::kNumber;
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text, const std::string& where) {
  return JsonParser(text, where).parse();
}

const Json* Json::find(std::string_view key) const {
  const auto found = std::find(keys_.begin(), keys_.end(), key);
  return found == keys_.end() ? nullptr : &items_[static_cast<std::size_t>(found - keys_.begin())];
}

std::string Json::describe() const {
  std::ostringstream text;
  switch (type_) {
    case Type::kNull:
      text << "null";
      break;
    case Type::kBool:
      text << (integer_ != 0 ? "true" : "false");
      break;
    case Type::kInteger:
      text << integer_;
      break;
    case Type::kNumber:
      text << number_;
      break;
    case Type::kString:
      text << '"' << string_.substr(0, 60) << '"';
      break;
    case Type::kArray:
      text << "an array of " << items_.size();
      break;
    case Type::kObject:
      text << "an object of " << items_.size();
      break;
  }
  return text.str();
}

}  // namespace higgs_rt
