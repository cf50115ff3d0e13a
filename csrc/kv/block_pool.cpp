#include "kv/block_pool.h"

#include "core/check.h"

namespace higgs_rt {

BlockPool::BlockPool(std::int32_t num_blocks) {
  check(num_blocks >= 1, "block_pool", "num_blocks: expected at least 1, got ", num_blocks);
  references_.assign(static_cast<std::size_t>(num_blocks), 0);
  free_.reserve(references_.size());
  for (std::int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

std::int32_t& BlockPool::counter(std::int32_t block, const char* where) {
  check_internal(block >= 0 && block < num_blocks(), where, "expected a block below ", num_blocks(),
                 ", got ", block);
  return references_[static_cast<std::size_t>(block)];
}

std::int32_t BlockPool::allocate() {
  if (free_.empty()) {
    fail(ErrorCode::kResourceExhausted, "block_pool.allocate", "expected a free block, got 0 of ",
         num_blocks());
  }
  const std::int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<std::size_t>(block)] = 1;
  return block;
}

void BlockPool::retain(std::int32_t block) {
  std::int32_t& count = counter(block, "block_pool.retain");
  check_internal(count > 0, "block_pool.retain", "expected block ", block,
                 " to be held, it is free");
  ++count;
}

void BlockPool::release(std::int32_t block) {
  std::int32_t& count = counter(block, "block_pool.release");
  check_internal(count > 0, "block_pool.release", "expected block ", block,
                 " to be held, it is free");
  if (--count == 0) free_.push_back(block);
}

std::int32_t BlockPool::references(std::int32_t block) const {
  return references_.at(static_cast<std::size_t>(block));
}

void BlockPool::check_all_free() const {
  for (std::size_t block = 0; block < references_.size(); ++block) {
    check_internal(references_[block] == 0, "block_pool", "expected every block to be free, block ",
                   block, " has ", references_[block], " references");
  }
  check_internal(num_free() == num_blocks(), "block_pool", "expected ", num_blocks(),
                 " free blocks, got ", num_free());
}

}  // namespace higgs_rt
