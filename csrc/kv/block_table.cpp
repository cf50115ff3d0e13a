#include "kv/block_table.h"

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

void BlockTable::clear() {
  for (const std::int32_t block : blocks_) pool_->release(block);
  blocks_.clear();
}

}  // namespace higgs_rt
