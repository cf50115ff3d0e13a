#include "kv/prefix_cache.h"

#include "core/check.h"

namespace higgs_rt {

PrefixCache::PrefixCache(BlockPool& pool, std::int32_t max_blocks)
    : pool_(pool), max_blocks_(max_blocks), keys_(static_cast<std::size_t>(pool.num_blocks())) {
  check(max_blocks >= 0 && max_blocks <= pool.num_blocks(), "prefix_cache",
        "max_blocks: expected 0..", pool.num_blocks(), " (blocks of the pool), got ", max_blocks);
  blocks_.reserve(static_cast<std::size_t>(max_blocks));
  pool_.on_reuse([this](std::int32_t block) { evict(block); });
}

PrefixCache::~PrefixCache() {
  clear();
  pool_.on_reuse({});
}

std::int32_t PrefixCache::find(PrefixKey key) const {
  const auto found = blocks_.find(key);
  return found == blocks_.end() ? -1 : found->second;
}

void PrefixCache::insert(PrefixKey key, std::int32_t block) {
  if (!enabled() || blocks_.contains(key)) return;
  if (size() == max_blocks_) {
    const std::int32_t oldest = pool_.oldest_idle();
    if (oldest < 0) return;
    pool_.forget(oldest);
    evict(oldest);
  }
  pool_.keep(block);
  keys_[static_cast<std::size_t>(block)] = key;
  blocks_.emplace(key, block);
}

void PrefixCache::clear() {
  for (const auto& [key, block] : blocks_) pool_.forget(block);
  blocks_.clear();
}

void PrefixCache::evict(std::int32_t block) {
  blocks_.erase(keys_[static_cast<std::size_t>(block)]);
  ++evictions_;
}

}  // namespace higgs_rt
