// Accounting of KV blocks: which are free, and how many holders each of the others has.
#pragma once

#include <cstdint>
#include <vector>

namespace higgs_rt {

// Hands out block numbers [0, num_blocks); the storage behind them belongs to the engine. Every
// operation is O(1). Counted references let several sequences hold one block. For one thread.
class BlockPool {
 public:
  explicit BlockPool(std::int32_t num_blocks);

  // A free block, now with one reference. Throws kResourceExhausted when none is free.
  std::int32_t allocate();
  // One more reference to a block that has at least one. Throws kInternal otherwise.
  void retain(std::int32_t block);
  // One reference less; the last one frees the block. Throws kInternal when there is none.
  void release(std::int32_t block);

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t num_free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t references(std::int32_t block) const;
  // Throws kInternal that names a block that is still held.
  void check_all_free() const;

 private:
  std::int32_t& counter(std::int32_t block, const char* where);

  std::vector<std::int32_t> references_;  // [num_blocks]
  std::vector<std::int32_t> free_;        // stack
};

}  // namespace higgs_rt
