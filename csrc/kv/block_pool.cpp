#include "kv/block_pool.h"

#include "core/check.h"

namespace higgs_rt {

BlockPool::BlockPool(std::int32_t num_blocks) {
  check(num_blocks >= 1, "block_pool", "num_blocks: expected at least 1, got ", num_blocks);
  const auto count = static_cast<std::size_t>(num_blocks);
  references_.assign(count, 0);
  kept_.assign(count, false);
  idle_.resize(count + 1);
  idle_.back() = {num_blocks, num_blocks};
  free_.reserve(count);
  for (std::int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

std::int32_t& BlockPool::counter(std::int32_t block, const char* where) {
  check_internal(block >= 0 && block < num_blocks(), where, "expected a block below ", num_blocks(),
                 ", got ", block);
  return references_[static_cast<std::size_t>(block)];
}

void BlockPool::push_idle(std::int32_t block) {
  const std::int32_t end = num_blocks();
  Links& links = idle_[static_cast<std::size_t>(block)];
  links = {idle_.back().before, end};
  idle_[static_cast<std::size_t>(links.before)].after = block;
  idle_.back().before = block;
  ++num_idle_;
}

void BlockPool::remove_idle(std::int32_t block) {
  const Links links = idle_[static_cast<std::size_t>(block)];
  idle_[static_cast<std::size_t>(links.before)].after = links.after;
  idle_[static_cast<std::size_t>(links.after)].before = links.before;
  --num_idle_;
}

std::int32_t BlockPool::allocate() {
  if (num_free() == 0) {
    fail(ErrorCode::kResourceExhausted, "block_pool.allocate", "expected a free block, got 0 of ",
         num_blocks());
  }
  if (free_.empty()) {
    const std::int32_t reused = oldest_idle();
    forget(reused);
    if (on_reuse_) on_reuse_(reused);
  }
  const std::int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<std::size_t>(block)] = 1;
  return block;
}

void BlockPool::retain(std::int32_t block) {
  std::int32_t& count = counter(block, "block_pool.retain");
  const bool idle = count == 0 && kept_[static_cast<std::size_t>(block)];
  check_internal(count > 0 || idle, "block_pool.retain", "expected block ", block,
                 " to be held, it is free");
  if (idle) remove_idle(block);
  ++count;
}

void BlockPool::release(std::int32_t block) {
  std::int32_t& count = counter(block, "block_pool.release");
  check_internal(count > 0, "block_pool.release", "expected block ", block,
                 " to be held, it is free");
  if (--count > 0) return;
  if (kept_[static_cast<std::size_t>(block)]) {
    push_idle(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::keep(std::int32_t block) {
  check_internal(counter(block, "block_pool.keep") > 0, "block_pool.keep", "expected block ", block,
                 " to be held, it is free");
  kept_[static_cast<std::size_t>(block)] = true;
}

void BlockPool::forget(std::int32_t block) {
  const bool unheld = counter(block, "block_pool.forget") == 0;
  if (!kept_[static_cast<std::size_t>(block)]) return;
  kept_[static_cast<std::size_t>(block)] = false;
  if (!unheld) return;
  remove_idle(block);
  free_.push_back(block);
}

std::int32_t BlockPool::oldest_idle() const { return num_idle_ == 0 ? -1 : idle_.back().after; }

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
