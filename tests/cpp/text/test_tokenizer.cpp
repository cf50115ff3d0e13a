// Splitting, byte-pair encoding and reading of tokenizer.json. Equality with the tokenizers package
// on random texts: tests/python/test_native_prompt.py.
#include <fstream>
#include <sstream>

#include "check.h"
#include "io/temporary_directory.h"
#include "text/bpe.h"
#include "text/llama_split.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace higgs_rt {
namespace {

std::string split(const std::u32string& text) {
  std::string out;
  for (const auto piece : split_llama(text)) out += encode_utf8(piece) + "|";
  return out;
}

std::string text_of(const std::vector<std::int32_t>& ids) {
  std::string out;
  for (const std::int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

constexpr const char* kSpecial[] = {"<|begin_of_text|>",    "<|start_header_id|>",
                                    "<|end_header_id|>",    "<|eom_id|>",
                                    "<|eot_id|>",           "<|audio_bos|>",
                                    "<|audio_eos|>",        "<|audio_out_bos|>",
                                    "<|scene_desc_start|>", "<|scene_desc_end|>",
                                    "<|recipient|>",        "<|AUDIO|>",
                                    "<|AUDIO_OUT|>",        "<|reserved_special_token_6|>"};

// A tokenizer.json of single bytes (id = byte), "ab" = 256, and special tokens from 257 on.
std::string tokenizer_json() {
  std::ostringstream out;
  out << R"({"normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,)"
      << R"( "use_regex": false}, "model": {"type": "BPE", "ignore_merges": false, "vocab": {)";
  char32_t other = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool own = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const std::string symbol = encode_utf8(std::u32string(1, own ? byte : other++));
    out << '"' << (symbol == "\"" || symbol == "\\" ? "\\" : "") << symbol
        << "\": " << static_cast<int>(byte) << ", ";
  }
  out << R"("ab": 256}, "merges": ["a b"]}, "added_tokens": [)";
  int id = 257;
  for (const char* token : kSpecial) {
    out << (id == 257 ? "" : ", ") << "{\"id\": " << id << ", \"content\": \"" << token
        << "\", \"normalized\": false}";
    ++id;
  }
  out << "]}";
  return out.str();
}

// The message of loading the file after `from` was replaced by `to`.
std::string refusal(const std::string& from, const std::string& to) {
  std::string json = tokenizer_json();
  const std::size_t at = json.find(from);
  if (at == std::string::npos) return "nothing to replace";
  json.replace(at, from.size(), to);
  const testing::TemporaryDirectory folder;
  const std::string path = folder.write("tokenizer.json", json);
  return testing::thrown([&] { Tokenizer::load(path); });
}

TEST("the Llama 3 split takes words, numbers, marks and white space") {
  EXPECT_EQ(split(U"It's 12345 o'clock, isn't it?\n\n Ok"),
            "It|'s| |123|45| o|'clock|,| isn|'t| it|?\n\n| Ok|");
  EXPECT_EQ(split(U"a   b  \n  c  "), "a|  | b|  \n| | c|  |");
  EXPECT_EQ(split(U"'\u017f 'LL'x"), "'\u017f| '|LL|'x|");
  EXPECT_EQ(split(U""), "");
}

TEST("the lowest rank is joined first, the leftmost before others") {
  Bpe::Vocabulary vocabulary = {{"aa", 300}, {"ab", 301}, {"aab", 302}, {"xyz", 303}};
  for (int byte = 0; byte < 256; ++byte) vocabulary[std::string(1, static_cast<char>(byte))] = byte;
  const Bpe::Merges merges = {{Bpe::pair_key('a', 'a'), {1, 300}},
                              {Bpe::pair_key('a', 'b'), {0, 301}},
                              {Bpe::pair_key(300, 'b'), {2, 302}}};
  const auto encoded = [&](const char* text, bool whole) {
    std::vector<std::int32_t> ids;
    Bpe(vocabulary, merges, whole).encode(text, ids);
    return text_of(ids);
  };
  EXPECT_EQ(encoded("aaaa", false), "300 300 ");
  EXPECT_EQ(encoded("aaa", false), "300 97 ");
  EXPECT_EQ(encoded("aab", false), "97 301 ");
  EXPECT_EQ(encoded("aab", true), "302 ");
  EXPECT_EQ(encoded("xyz", false), "120 121 122 ");
  EXPECT_EQ(encoded("xyz", true), "303 ");
}

TEST("special tokens are found in a text, the rest is bytes") {
  const testing::TemporaryDirectory folder;
  const Tokenizer tokenizer = Tokenizer::load(folder.write("tokenizer.json", tokenizer_json()));
  EXPECT_EQ(text_of(tokenizer.encode("ab<|eot_id|>b \u00e9<|eot")),
            "256 261 98 32 195 169 60 124 101 111 116 ");
  EXPECT_EQ(text_of(tokenizer.encode("")), "");
  EXPECT_THROWS(tokenizer.encode("a\xff"), "[text] expected UTF-8, got other bytes at byte 1");
}

TEST("what the tokenizer does not know is refused by name") {
  const auto expect = [](const std::string& from, const std::string& to, const std::string& part) {
    const std::string message = refusal(from, to);
    if (message.find(part) == std::string::npos) {
      testing::report(__FILE__, __LINE__, "expected \"" + part + "\", got \"" + message + "\"");
    }
  };
  expect(R"("normalizer": null)", R"("normalizer": {"type": "NFC"})", "normalizer] expected null");
  expect(R"("use_regex": false)", R"("use_regex": true)", "use_regex] expected false");
  expect(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})",
         R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\w+"},)"
         R"( "behavior": "Isolated"}, {"type": "ByteLevel", "use_regex": false}]})",
         "pattern] expected the split pattern of Llama 3, (?i:'s|");
  expect(R"("type": "BPE")", R"("type": "Unigram")", "model:type] expected \"BPE\", got Unigram");
  expect(R"(["a b"])", R"(["a zz"])", "merges:0] expected tokens of the vocabulary, got a zz");
  expect(R"("id": 258)", R"("id": 259)", "id] expected 258, got 259");
  expect("<|eom_id|>", "<|other|>", "expected the special token <|eom_id|>, got none");
  expect(R"("c": 99, )", "", "expected a token of byte 99, got none");
  expect(R"("normalized": false)", R"("lstrip": true)", "lstrip] expected false, got true");
  EXPECT_THROWS(Tokenizer::load("/nowhere/tokenizer.json"), "/nowhere/tokenizer.json");
}

}  // namespace
}  // namespace higgs_rt
