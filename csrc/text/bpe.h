// Byte-pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace higgs_rt {

// Tokens are strings of raw bytes; every single byte is a token.
class Bpe {
 public:
  struct Merge {
    std::int32_t rank = 0;  // lower goes first
    std::int32_t id = 0;    // of the joined token
  };
  using Vocabulary = std::unordered_map<std::string, std::int32_t>;
  using Merges = std::unordered_map<std::uint64_t, Merge>;  // by pair_key of both ids

  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
           static_cast<std::uint32_t>(right);
  }

  Bpe() = default;
  // whole_first: a piece that is a token is that token, whatever the merges would make of it.
  // Throws kInvalidArgument when a byte is no token.
  Bpe(Vocabulary vocabulary, Merges merges, bool whole_first);

  // Appends the ids of `piece`: always the pair of lowest rank is joined, the leftmost first.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  void merge(std::string_view piece, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  Merges merges_;
  std::array<std::int32_t, 256> byte_ids_{};
  bool whole_first_ = false;
};

}  // namespace higgs_rt
