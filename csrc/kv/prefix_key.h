// What a block of a prompt holds, as a key: equal keys, equal keys and values in the cache.
#pragma once

#include <cstdint>
#include <span>

namespace higgs_rt {

struct PrefixKey {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  bool operator==(const PrefixKey&) const = default;
};

// A chain of SipHash-2-4 with 128 bits of result: the key of a block depends on all that comes
// before it. The hash has a secret, drawn at random for each cache, so that nobody who does not
// know it can make two prompts of one key. Its functions change nothing and may be called from any
// thread.
class PrefixHasher {
 public:
  PrefixHasher();  // a random secret
  explicit PrefixHasher(PrefixKey secret) : secret_(secret) {}

  // What the first block of a prompt follows. `adapter`: whatever else decides the keys and values
  // of given positions, such as the weights added to the model's own; 0: nothing.
  PrefixKey root(std::uint64_t adapter) const;
  // The key of a block that follows `before` and holds `content`: as many words as the caller
  // likes, but such that different positions give different words.
  PrefixKey next(PrefixKey before, std::span<const std::uint32_t> content) const;

 private:
  PrefixKey secret_;
};

}  // namespace higgs_rt
