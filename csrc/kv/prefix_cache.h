// Which KV blocks hold which prompt prefixes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"
#include "kv/prefix_key.h"

namespace higgs_rt {

// Keeps blocks of the pool whose positions have all been computed, so that a prompt that begins in
// the same way can share them. A cached block that nobody holds counts as free in the pool and is
// given up when it is needed there, the one not used for longest first: caching never leaves a
// sequence without a block. For the pool's thread, but for hasher().
class PrefixCache {
 public:
  // At most `max_blocks` are cached; 0: none ever. The pool must outlive the cache and be used by
  // no other.
  PrefixCache(BlockPool& pool, std::int32_t max_blocks);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  bool enabled() const { return max_blocks_ > 0; }
  const PrefixHasher& hasher() const { return hasher_; }

  // The block of that key, or -1. It may be idle: retain it before anything is allocated.
  std::int32_t find(PrefixKey key) const;
  // Caches a block that is held, complete and never written again by those who hold it. Nothing
  // happens when the key has a block, or when the limit is reached and all cached blocks are held.
  void insert(PrefixKey key, std::int32_t block);
  // Forgets everything; who holds a block goes on holding it.
  void clear();

  std::int32_t size() const { return static_cast<std::int32_t>(blocks_.size()); }
  // Blocks given up for others so far.
  std::int64_t evictions() const { return evictions_; }

 private:
  struct Hash {
    std::size_t operator()(PrefixKey key) const { return static_cast<std::size_t>(key.low); }
  };
  void evict(std::int32_t block);

  BlockPool& pool_;
  const std::int32_t max_blocks_;
  const PrefixHasher hasher_;
  std::unordered_map<PrefixKey, std::int32_t, Hash> blocks_;
  std::vector<PrefixKey> keys_;  // [num_blocks]; of the cached ones
  std::int64_t evictions_ = 0;
};

}  // namespace higgs_rt
