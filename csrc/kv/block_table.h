// The KV blocks of one sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/kv_layout.h"

namespace higgs_rt {

// Holds one reference to each of its blocks and gives them back when it is cleared or destroyed.
// The pool must outlive it. Lives on the thread of the pool once it holds blocks.
class BlockTable {
 public:
  BlockTable(BlockPool& pool, const KvLayout& layout) : pool_(&pool), layout_(layout) {}
  ~BlockTable() { clear(); }
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Grows until positions [0, positions) have slots. Throws kResourceExhausted, unchanged, when
  // the pool has too few free blocks.
  void reserve(std::int32_t positions);
  void clear();

  std::int32_t size() const { return static_cast<std::int32_t>(blocks_.size()); }
  std::span<const std::int32_t> blocks() const { return blocks_; }
  // KV slot of a position that reserve() has covered.
  std::int32_t slot(std::int32_t position) const { return layout_.slot(blocks_.data(), position); }

 private:
  BlockPool* pool_;
  KvLayout layout_;
  std::vector<std::int32_t> blocks_;
};

}  // namespace higgs_rt
