// Accounting of KV blocks: which are free, and how many holders each of the others has.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace higgs_rt {

// Hands out block numbers [0, num_blocks); the storage behind them belongs to the engine. Every
// operation is O(1). Counted references let several sequences hold one block. For one thread.
//
// A block may be kept: when its last holder goes it lies idle, with what it holds, until somebody
// holds it again or no other block is left to hand out. An idle block counts as free.
class BlockPool {
 public:
  explicit BlockPool(std::int32_t num_blocks);

  // A free block, now with one reference: the idle one that has been idle longest when there is no
  // other. Throws kResourceExhausted when none is free.
  std::int32_t allocate();
  // One more reference to a block that has at least one or is idle. Throws kInternal otherwise.
  void retain(std::int32_t block);
  // One reference less; the last one frees the block. Throws kInternal when there is none.
  void release(std::int32_t block);

  // Keeps a block that has a reference. Throws kInternal otherwise.
  void keep(std::int32_t block);
  // Ends that; an idle block is free for good. Nothing happens to one that is not kept.
  void forget(std::int32_t block);
  // The block that has been idle longest; -1: none is idle.
  std::int32_t oldest_idle() const;
  // Called with an idle block that allocate() is about to hand out; it is no longer kept.
  void on_reuse(std::function<void(std::int32_t)> listener) { on_reuse_ = std::move(listener); }

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t num_free() const {  // idle ones included
    return static_cast<std::int32_t>(free_.size()) + num_idle_;
  }
  std::int32_t num_idle() const { return num_idle_; }
  std::int32_t references(std::int32_t block) const;
  std::span<const std::int32_t> references() const { return references_; }  // [num_blocks]
  // Throws kInternal that names a block that is still held.
  void check_all_free() const;

 private:
  std::int32_t& counter(std::int32_t block, const char* where);
  void push_idle(std::int32_t block);
  void remove_idle(std::int32_t block);

  struct Links {
    std::int32_t before = -1;
    std::int32_t after = -1;
  };
  std::vector<std::int32_t> references_;  // [num_blocks]
  std::vector<std::int32_t> free_;        // stack
  std::vector<bool> kept_;                // [num_blocks]
  // A ring of the idle blocks, oldest first, through its last entry. [num_blocks + 1]
  std::vector<Links> idle_;
  std::int32_t num_idle_ = 0;
  std::function<void(std::int32_t)> on_reuse_;
};

}  // namespace higgs_rt
