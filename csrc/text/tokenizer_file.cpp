// Reading tokenizer.json, and refusing what Tokenizer does not do.
#include <filesystem>
#include <unordered_set>

#include "core/check.h"
#include "io/json.h"
#include "io/json_object.h"
#include "io/mapped_file.h"
#include "text/llama_split.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace higgs_rt {

namespace {

constexpr std::string_view kRequired[] = {token::kBeginOfText, token::kStartHeader,
                                          token::kEndHeader,   token::kEndOfMessage,
                                          token::kEndOfTurn,   token::kAudioBos,
                                          token::kAudioEos,    token::kAudioOutBos,
                                          token::kSceneStart,  token::kSceneEnd,
                                          "<|recipient|>",     "<|AUDIO|>",
                                          "<|AUDIO_OUT|>",     "<|reserved_special_token_6|>"};

// The byte that stands behind each code point of byte-level BPE's printable alphabet.
std::unordered_map<char32_t, char> byte_alphabet() {
  std::unordered_map<char32_t, char> alphabet;
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet[printable ? byte : next++] = static_cast<char>(byte);
  }
  return alphabet;
}

class TokenizerFile {
 public:
  explicit TokenizerFile(const std::string& path)
      : path_(path), top_(Json::parse(MappedFile(path).text(), path)) {
    check(top_.is_object(), path_.c_str(), "expected an object, got ", top_.describe());
  }

  TokenizerParts parts() {
    for (const char* name : {"normalizer", "truncation", "padding"}) require_null(top_, name);
    TokenizerParts parts;
    parts.llama_split = read_split(field(top_, "pre_tokenizer"));
    read_model(field(top_, "model"), parts);
    read_added(field(top_, "added_tokens"), parts);
    return parts;
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& expected,
                           const std::string& got) const {
    fail(ErrorCode::kUnsupported, (path_ + ":" + name).c_str(), "expected ", expected, ", got ",
         got);
  }

  const Json& field(const Json& object, const std::string& name) const {
    const Json* value = object.find(name);
    if (value == nullptr) refuse(name, "a value", "no such field");
    return *value;
  }

  void require_null(const Json& object, const std::string& name) const {
    const Json* value = object.find(name);
    const bool empty = value == nullptr || value->is_null() ||
                       (value->type() == Json::Type::kString && value->string_value().empty());
    if (!empty) refuse(name, "null", value->describe());
  }

  bool flag(const Json& object, const std::string& name) const {
    const Json* value = object.find(name);
    return value != nullptr && value->type() == Json::Type::kBool && value->bool_value();
  }

  void require_off(const Json& object, const std::string& name) const {
    if (flag(object, name)) refuse(name, "false", "true");
  }

  std::string text(const Json& object, const std::string& name) const {
    const Json& value = field(object, name);
    if (value.type() != Json::Type::kString) refuse(name, "a string", value.describe());
    return value.string_value();
  }

  std::int32_t id(const Json& value, const std::string& name) const {
    const bool good = value.type() == Json::Type::kInteger && value.integer_value() >= 0 &&
                      value.integer_value() < (1 << 30);
    if (!good) refuse(name, "an id in 0..2^30-1", value.describe());
    return static_cast<std::int32_t>(value.integer_value());
  }

  // Byte-level alone: one piece. A sequence of Llama 3's split and byte-level: true.
  bool read_split(const Json& value) const {
    const std::string type = value.is_object() ? text(value, "type") : value.describe();
    if (type == "ByteLevel") {
      require_byte_level(value);
      return false;
    }
    const Json* steps = value.find("pretokenizers");
    const bool two = type == "Sequence" && steps != nullptr && steps->items().size() == 2 &&
                     steps->items()[0].is_object() && steps->items()[1].is_object() &&
                     text(steps->items()[0], "type") == "Split" &&
                     text(steps->items()[1], "type") == "ByteLevel";
    if (!two) refuse("pre_tokenizer", "ByteLevel, or a sequence of Split and ByteLevel", type);
    const Json& split = steps->items()[0];
    require_byte_level(steps->items()[1]);
    require_off(split, "invert");
    if (text(split, "behavior") != "Isolated") {
      refuse("behavior", "\"Isolated\"", text(split, "behavior"));
    }
    const Json& pattern = field(split, "pattern");
    const Json* regex = pattern.find("Regex");
    const std::string got = regex == nullptr ? pattern.describe() : regex->string_value();
    if (got != kLlamaPattern) {
      refuse("pattern", "the split pattern of Llama 3, " + std::string(kLlamaPattern), got);
    }
    return true;
  }

  void require_byte_level(const Json& value) const {
    require_off(value, "add_prefix_space");
    const Json* regex = value.find("use_regex");
    if (regex == nullptr || regex->type() != Json::Type::kBool || regex->bool_value()) {
      refuse("pre_tokenizer:use_regex", "false", regex == nullptr ? "no such field" : "true");
    }
  }

  void read_model(const Json& model, TokenizerParts& parts) {
    if (text(model, "type") != "BPE") refuse("model:type", "\"BPE\"", text(model, "type"));
    for (const char* name :
         {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
      require_null(model, name);
    }
    require_off(model, "byte_fallback");
    const Json& vocab = field(model, "vocab");
    if (!vocab.is_object()) refuse("model:vocab", "an object", vocab.describe());
    Bpe::Vocabulary vocabulary;
    vocabulary.reserve(vocab.items().size());
    for (std::size_t i = 0; i < vocab.items().size(); ++i) {
      const std::int32_t value = id(vocab.items()[i], "vocab:" + vocab.keys()[i]);
      stored_[vocab.keys()[i]] = value;
      std::string bytes;
      if (to_bytes(vocab.keys()[i], bytes)) vocabulary[std::move(bytes)] = value;
    }
    Bpe::Merges merges = read_merges(field(model, "merges"), vocabulary);
    parts.bpe = Bpe(std::move(vocabulary), std::move(merges), flag(model, "ignore_merges"));
  }

  // False for a token with other characters: no text can contain it.
  bool to_bytes(const std::string& symbols, std::string& bytes) const {
    for (const char32_t symbol : decode_utf8(symbols, path_)) {
      const auto found = alphabet_.find(symbol);
      if (found == alphabet_.end()) return false;
      bytes.push_back(found->second);
    }
    return true;
  }

  Bpe::Merges read_merges(const Json& list, const Bpe::Vocabulary& vocabulary) const {
    Bpe::Merges merges;
    merges.reserve(list.items().size());
    for (std::size_t rank = 0; rank < list.items().size(); ++rank) {
      const std::string name = "merges:" + std::to_string(rank);
      const auto [left, right] = pair(list.items()[rank], name);
      const auto find = [&](const std::string& bytes) {
        const auto found = vocabulary.find(bytes);
        if (found == vocabulary.end()) refuse(name, "tokens of the vocabulary", left + " " + right);
        return found->second;
      };
      std::string a;
      std::string b;
      if (!to_bytes(left, a) || !to_bytes(right, b)) {
        refuse(name, "two byte-level tokens", left + " " + right);
      }
      merges[Bpe::pair_key(find(a), find(b))] = {static_cast<std::int32_t>(rank), find(a + b)};
    }
    return merges;
  }

  // "a b", or ["a", "b"].
  std::pair<std::string, std::string> pair(const Json& merge, const std::string& name) const {
    if (merge.is_array() && merge.items().size() == 2) {
      return {merge.items()[0].string_value(), merge.items()[1].string_value()};
    }
    const std::string& both = merge.string_value();
    const std::size_t space = both.find(' ');
    if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
      refuse(name, "two tokens", merge.describe());
    }
    return {both.substr(0, space), both.substr(space + 1)};
  }

  void read_added(const Json& list, TokenizerParts& parts) const {
    std::unordered_set<std::string> found;
    std::int32_t next = static_cast<std::int32_t>(stored_.size());
    for (const Json& item : list.items()) {
      AddedToken added{text(item, "content"), id(field(item, "id"), "added_tokens:id")};
      const std::string name = "added_tokens:" + added.content;
      for (const char* option : {"single_word", "lstrip", "rstrip"}) {
        if (flag(item, option)) refuse(name + ":" + option, "false", "true");
      }
      if (added.content.empty()) refuse(name, "a token", "an empty string");
      // The id that the `tokenizers` package would give it.
      const auto stored = stored_.find(added.content);
      const std::int32_t expected = stored == stored_.end() ? next : stored->second;
      if (added.id != expected) {
        refuse(name + ":id", std::to_string(expected), std::to_string(added.id));
      }
      next = std::max(next, added.id + 1);
      found.insert(added.content);
      (flag(item, "normalized") ? parts.second_added : parts.first_added)
          .push_back(std::move(added));
    }
    for (const std::string_view required : kRequired) {
      if (found.count(std::string(required)) == 0) {
        refuse("added_tokens", "the special token " + std::string(required), "none");
      }
    }
  }

  const std::string path_;
  const Json top_;
  const std::unordered_map<char32_t, char> alphabet_ = byte_alphabet();
  std::unordered_map<std::string, std::int32_t> stored_;
};

}  // namespace

Tokenizer Tokenizer::load(const std::string& path) {
  return Tokenizer(TokenizerFile(path).parts());
}

}  // namespace higgs_rt
