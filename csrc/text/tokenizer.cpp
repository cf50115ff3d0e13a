#include "text/tokenizer.h"

#include <algorithm>

#include "text/llama_split.h"
#include "text/unicode.h"

namespace higgs_rt {

Tokenizer::Tokenizer(TokenizerParts parts)
    : bpe_(std::move(parts.bpe)),
      first_added_(index_of(parts.first_added)),
      second_added_(index_of(parts.second_added)),
      llama_split_(parts.llama_split) {}

Tokenizer::Index Tokenizer::index_of(const std::vector<AddedToken>& tokens) {
  Index index;
  for (const AddedToken& token : tokens) index[token.content.front()].push_back(token);
  for (auto& [first, all] : index) {
    std::ranges::stable_sort(all, std::greater<>{},
                             [](const AddedToken& token) { return token.content.size(); });
  }
  return index;
}

template <class Rest>
void Tokenizer::split(std::string_view text, const Index& index, std::vector<std::int32_t>& ids,
                      Rest&& rest) {
  std::size_t begin = 0;  // of what lies before the next token
  std::size_t at = 0;
  while (at < text.size()) {
    const AddedToken* found = nullptr;
    if (const auto candidates = index.find(text[at]); candidates != index.end()) {
      for (const AddedToken& token : candidates->second) {
        if (!text.substr(at).starts_with(token.content)) continue;
        found = &token;
        break;
      }
    }
    if (found == nullptr) {
      ++at;
      continue;
    }
    if (at > begin) rest(text.substr(begin, at - begin));
    ids.push_back(found->id);
    at += found->content.size();
    begin = at;
  }
  if (at > begin) rest(text.substr(begin));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  split(text, first_added_, ids, [&](std::string_view between) {
    split(between, second_added_, ids, [&](std::string_view plain) { encode_plain(plain, ids); });
  });
  return ids;
}

void Tokenizer::encode_plain(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::u32string decoded = decode_utf8(text, "text");
  if (!llama_split_) return bpe_.encode(text, ids);
  for (const std::u32string_view piece : split_llama(decoded)) {
    bpe_.encode(encode_utf8(piece), ids);
  }
}

}  // namespace higgs_rt
