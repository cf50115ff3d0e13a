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
  // Holds a block that already has its positions' keys and values, as block `index`: the next one,
  // or in place of one of its own, which is given back. No row may be written to it.
  void adopt(std::int32_t index, std::int32_t block);
  // The last block goes first, so that of blocks that lie idle the beginning of a prompt is used
  // again last: without it the others cannot be found.
  void clear();

  std::int32_t block_tokens() const { return layout_.block_tokens; }
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
