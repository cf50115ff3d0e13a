#include "kv/block_table.h"

#include <utility>

#include "core/check.h"

namespace higgs_rt {

void BlockTable::reserve(std::int32_t positions) {
  const std::int32_t missing = layout_.blocks_for(positions) - size();
  if (missing > pool_->num_free()) {
    fail(ErrorCode::kResourceExhausted, "block_table.reserve", "expected ", missing,
         " free blocks, got ", pool_->num_free());
  }
  for (std::int32_t i = 0; i < missing; ++i) blocks_.push_back(pool_->allocate());
}

void BlockTable::adopt(std::int32_t index, std::int32_t block) {
  check_internal(index >= 0 && index <= size(), "block_table.adopt",
                 "expected an index of at most ", size(), ", got ", index);
  pool_->retain(block);
  if (index == size()) {
    blocks_.push_back(block);
  } else {
    pool_->release(std::exchange(blocks_[static_cast<std::size_t>(index)], block));
  }
}

void BlockTable::clear() {
  while (!blocks_.empty()) {
    pool_->release(blocks_.back());
    blocks_.pop_back();
  }
}

}  // namespace higgs_rt
