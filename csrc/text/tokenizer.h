// Text to token ids as the `tokenizers` package does it for a model's tokenizer.json.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe.h"

namespace higgs_rt {

// Special tokens of the prompt format (specification 1.2).
namespace token {
inline constexpr std::string_view kBeginOfText = "<|begin_of_text|>";
inline constexpr std::string_view kStartHeader = "<|start_header_id|>";
inline constexpr std::string_view kEndHeader = "<|end_header_id|>";
inline constexpr std::string_view kEndOfMessage = "<|eom_id|>";
inline constexpr std::string_view kEndOfTurn = "<|eot_id|>";
inline constexpr std::string_view kAudioBos = "<|audio_bos|>";
inline constexpr std::string_view kAudioEos = "<|audio_eos|>";
inline constexpr std::string_view kAudioOutBos = "<|audio_out_bos|>";
inline constexpr std::string_view kSceneStart = "<|scene_desc_start|>";
inline constexpr std::string_view kSceneEnd = "<|scene_desc_end|>";
}  // namespace token

// An added token: found in a text before anything else is done with it.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
};

struct TokenizerParts {
  Bpe bpe;
  // Two passes: of each the longest token at the leftmost place wins.
  std::vector<AddedToken> first_added;   // "normalized": false
  std::vector<AddedToken> second_added;  // "normalized": true; nothing is normalised here
  bool llama_split = false;              // split by kLlamaPattern, else a text is one piece
};

class Tokenizer {
 public:
  // Reads byte-level BPE with no normaliser and either no split or that of Llama 3. What it does
  // not know, another split pattern for instance, is an error that names file, field and value;
  // as is a missing special token of the prompt format. kNotFound: no such file.
  static Tokenizer load(const std::string& path);
  explicit Tokenizer(TokenizerParts parts);

  // Special tokens in the text are recognised, none are added. Throws kInvalidArgument unless
  // `text` is UTF-8.
  std::vector<std::int32_t> encode(std::string_view text) const;

 private:
  // Tokens by their first byte, the longest first.
  using Index = std::map<char, std::vector<AddedToken>>;
  static Index index_of(const std::vector<AddedToken>& tokens);
  // Cuts at the tokens of `index` and hands what lies between to `rest`.
  template <class Rest>
  static void split(std::string_view text, const Index& index, std::vector<std::int32_t>& ids,
                    Rest&& rest);
  void encode_plain(std::string_view text, std::vector<std::int32_t>& ids) const;

  Bpe bpe_;
  Index first_added_;
  Index second_added_;
  bool llama_split_;
};

}  // namespace higgs_rt
