#include <random>
#include <set>

#include "check.h"
#include "kv/block_pool.h"
#include "kv/block_table.h"

using namespace higgs_rt;

TEST("block_pool_hands_out_every_block_once") {
  BlockPool pool(5);
  std::set<std::int32_t> seen;
  for (int i = 0; i < 5; ++i) seen.insert(pool.allocate());
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 4);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_THROWS(pool.allocate(), "[block_pool.allocate] expected a free block, got 0 of 5");
  EXPECT_THROWS(pool.check_all_free(), "has 1 references");
  for (const std::int32_t block : seen) pool.release(block);
  pool.check_all_free();
}

TEST("block_pool_counts_references") {
  BlockPool pool(2);
  const std::int32_t block = pool.allocate();
  pool.retain(block);
  EXPECT_EQ(pool.references(block), 2);
  pool.release(block);
  EXPECT_EQ(pool.num_free(), 1);
  pool.release(block);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_THROWS(pool.release(block), "[block_pool.release]");
  EXPECT_THROWS(pool.retain(block), "[block_pool.retain]");
  EXPECT_THROWS(pool.release(2), "expected a block below 2, got 2");
  EXPECT_THROWS(BlockPool(0), "num_blocks: expected at least 1, got 0");
}

TEST("block_table_maps_positions_and_gives_back") {
  BlockPool pool(4);
  const KvLayout layout{.block_tokens = 3, .num_blocks = 4};
  {
    BlockTable a(pool, layout);
    BlockTable b(pool, layout);
    a.reserve(3);
    b.reserve(1);
    a.reserve(7);
    EXPECT_EQ(a.size(), 3);
    EXPECT_EQ(b.size(), 1);
    std::set<std::int32_t> slots;
    for (int p = 0; p < 9; ++p) slots.insert(a.slot(p));
    for (int p = 0; p < 3; ++p) slots.insert(b.slot(p));
    EXPECT_EQ(slots.size(), 12u);
    EXPECT_EQ(a.slot(4), a.blocks()[1] * 3 + 1);
    EXPECT_THROWS(b.reserve(4), "[block_table.reserve] expected 1 free blocks, got 0");
    EXPECT_EQ(b.size(), 1);
    a.clear();
    EXPECT_EQ(pool.num_free(), 3);
    b.reserve(4);
  }
  pool.check_all_free();
}

TEST("block_pool_random_use_keeps_counts") {
  BlockPool pool(17);
  std::mt19937 random(7);
  std::vector<std::int32_t> held;  // one entry per reference
  for (int i = 0; i < 20000; ++i) {
    const auto action = random() % 3;
    if (action == 0 && pool.num_free() > 0) {
      held.push_back(pool.allocate());
    } else if (action == 1 && !held.empty()) {
      held.push_back(held[random() % held.size()]);
      pool.retain(held.back());
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      pool.release(held.back());
      held.pop_back();
    }
    const std::set<std::int32_t> distinct(held.begin(), held.end());
    REQUIRE(pool.num_free() == 17 - static_cast<std::int32_t>(distinct.size()));
  }
  for (const std::int32_t block : held) pool.release(block);
  pool.check_all_free();
}
