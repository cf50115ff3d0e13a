#include "kv/prefix_key.h"

#include <array>
#include <bit>
#include <random>

namespace higgs_rt {
namespace {

// SipHash (Aumasson and Bernstein, 2012) over whole 64-bit words.
class SipHash {
 public:
  explicit SipHash(PrefixKey secret)
      : v_{secret.low ^ 0x736f6d6570736575ull, secret.high ^ 0x646f72616e646f6dull ^ 0xeeull,
           secret.low ^ 0x6c7967656e657261ull, secret.high ^ 0x7465646279746573ull} {}

  void add(std::uint64_t word) {
    v_[3] ^= word;
    rounds(2);
    v_[0] ^= word;
    ++words_;
  }

  PrefixKey finish() {
    add((words_ * 8) << 56);
    v_[2] ^= 0xee;
    rounds(4);
    PrefixKey result;
    result.low = v_[0] ^ v_[1] ^ v_[2] ^ v_[3];
    v_[1] ^= 0xdd;
    rounds(4);
    result.high = v_[0] ^ v_[1] ^ v_[2] ^ v_[3];
    return result;
  }

 private:
  void rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v_[0] += v_[1];
      v_[2] += v_[3];
      v_[1] = std::rotl(v_[1], 13) ^ v_[0];
      v_[3] = std::rotl(v_[3], 16) ^ v_[2];
      v_[0] = std::rotl(v_[0], 32);
      v_[2] += v_[1];
      v_[0] += v_[3];
      v_[1] = std::rotl(v_[1], 17) ^ v_[2];
      v_[3] = std::rotl(v_[3], 21) ^ v_[0];
      v_[2] = std::rotl(v_[2], 32);
    }
  }

  std::array<std::uint64_t, 4> v_;
  std::uint64_t words_ = 0;
};

PrefixKey random_secret() {
  std::random_device source;
  const auto word = [&] { return (std::uint64_t{source()} << 32) | source(); };
  const std::uint64_t low = word();
  return {low, word()};
}

}  // namespace

PrefixHasher::PrefixHasher() : secret_(random_secret()) {}

PrefixKey PrefixHasher::root(std::uint64_t adapter) const {
  SipHash hash(secret_);
  hash.add(adapter);
  return hash.finish();
}

PrefixKey PrefixHasher::next(PrefixKey before, std::span<const std::uint32_t> content) const {
  SipHash hash(secret_);
  hash.add(before.low);
  hash.add(before.high);
  hash.add(content.size());
  for (std::size_t i = 0; i + 1 < content.size(); i += 2) {
    hash.add((std::uint64_t{content[i + 1]} << 32) | content[i]);
  }
  if (content.size() % 2 != 0) hash.add(content.back());
  return hash.finish();
}

}  // namespace higgs_rt
