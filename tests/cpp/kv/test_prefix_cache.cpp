#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "check.h"
#include "kv/block_table.h"
#include "kv/prefix_cache.h"

using namespace higgs_rt;

namespace {

PrefixKey key_of(std::uint64_t number) { return {number, ~number}; }

}  // namespace

TEST("prefix_key: SipHash-2-4-128 of eight bytes is the published one") {
  const PrefixHasher hasher({0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull});
  const PrefixKey key = hasher.root(0x0706050403020100ull);
  EXPECT_EQ(key.low, 0x61f55862baa9623bull);
  EXPECT_EQ(key.high, 0xb49714f364e2830full);
}

TEST("prefix_key: secret, adapter, what came before, content and its length all count") {
  const PrefixHasher hasher({1, 2});
  const std::vector<std::uint32_t> content = {1, 2, 3};
  const PrefixKey key = hasher.next(hasher.root(0), content);
  EXPECT(key == hasher.next(hasher.root(0), content));
  EXPECT(!(key == PrefixHasher({1, 3}).next(hasher.root(0), content)));
  EXPECT(!(key == hasher.next(hasher.root(1), content)));
  EXPECT(!(key == hasher.next(key, content)));
  for (const std::vector<std::uint32_t>& other :
       std::vector<std::vector<std::uint32_t>>{{1, 2, 4}, {2, 1, 3}, {1, 2, 3, 0}, {1, 2}, {}}) {
    EXPECT(!(key == hasher.next(hasher.root(0), other)));
  }
  EXPECT(!(PrefixHasher().root(0) == PrefixHasher().root(0)));  // secrets are drawn
}

TEST("prefix_cache: idle blocks count as free and are reused last, oldest first") {
  BlockPool pool(4);
  PrefixCache cache(pool, 4);
  const std::int32_t a = pool.allocate(), b = pool.allocate();
  cache.insert(key_of(1), a);
  cache.insert(key_of(2), b);
  cache.insert(key_of(2), a);  // has a block already
  EXPECT_EQ(cache.find(key_of(2)), b);
  pool.release(b);
  pool.release(a);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.num_idle(), 2);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 2; ++i) held.push_back(pool.allocate());
  EXPECT_EQ(cache.size(), 2);
  held.push_back(pool.allocate());
  EXPECT_EQ(held.back(), b);  // idle for longer
  EXPECT_EQ(cache.find(key_of(2)), -1);
  EXPECT_EQ(cache.find(key_of(1)), a);
  pool.retain(a);  // held again, no longer free
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_THROWS(pool.allocate(), "expected a free block, got 0 of 4");
  pool.release(a);
  held.push_back(pool.allocate());
  EXPECT_EQ(cache.size(), 0);
  EXPECT_EQ(cache.evictions(), 2);
  for (const std::int32_t block : held) pool.release(block);
  pool.check_all_free();
  EXPECT_THROWS(pool.retain(a), "to be held, it is free");
  EXPECT_THROWS(pool.keep(a), "to be held, it is free");
}

TEST("prefix_cache: at its limit it gives up the oldest idle block, never one that is held") {
  BlockPool pool(5);
  PrefixCache cache(pool, 2);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 3; ++i) held.push_back(pool.allocate());
  cache.insert(key_of(0), held[0]);
  cache.insert(key_of(1), held[1]);
  cache.insert(key_of(2), held[2]);  // both others are held
  EXPECT_EQ(cache.find(key_of(2)), -1);
  EXPECT_EQ(cache.size(), 2);
  pool.release(held[0]);
  cache.insert(key_of(2), held[2]);
  EXPECT_EQ(cache.find(key_of(0)), -1);
  EXPECT_EQ(cache.find(key_of(2)), held[2]);
  EXPECT_EQ(cache.evictions(), 1);
  pool.release(held[1]);
  cache.clear();
  EXPECT_EQ(cache.size(), 0);
  EXPECT_EQ(pool.num_idle(), 0);
  EXPECT_EQ(pool.num_free(), 4);
  pool.release(held[2]);  // forgotten while held: free for good
  EXPECT_EQ(pool.num_idle(), 0);
  pool.check_all_free();
  PrefixCache none(pool, 0);
  const std::int32_t block = pool.allocate();
  none.insert(key_of(1), block);
  EXPECT_EQ(none.find(key_of(1)), -1);
  EXPECT(!none.enabled());
  pool.release(block);
  EXPECT_THROWS(PrefixCache(pool, 6), "max_blocks: expected 0..5 (blocks of the pool), got 6");
}

TEST("block_table: adopted blocks are held, replace its own and go back last first") {
  BlockPool pool(6);
  PrefixCache cache(pool, 6);
  const KvLayout layout{.block_tokens = 2, .num_blocks = 6};
  BlockTable first(pool, layout), second(pool, layout);
  first.reserve(5);
  for (std::uint64_t i = 0; i < 2; ++i) cache.insert(key_of(i), first.blocks()[i]);
  second.adopt(0, first.blocks()[0]);
  second.reserve(5);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.references(first.blocks()[0]), 2);
  second.adopt(1, first.blocks()[1]);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(second.slot(3), first.slot(3));
  EXPECT_THROWS(second.adopt(4, first.blocks()[1]), "expected an index of at most 3, got 4");
  const std::int32_t end = first.blocks()[1];
  first.clear();
  second.clear();
  EXPECT_EQ(pool.num_idle(), 2);
  EXPECT_EQ(pool.oldest_idle(), end);
  pool.check_all_free();
}

TEST("prefix_cache: random use keeps counts, and what it finds is what was put in") {
  BlockPool pool(13);
  PrefixCache cache(pool, 9);
  std::mt19937 random(11);
  std::vector<std::int32_t> held;               // one entry per reference
  std::map<std::int32_t, std::uint64_t> holds;  // block -> what is in it
  for (std::uint64_t i = 0; i < 30000; ++i) {
    const auto action = random() % 4;
    if (action == 0 && pool.num_free() > 0) {
      held.push_back(pool.allocate());
      holds[held.back()] = random() % 40;
    } else if (action == 1 && !held.empty()) {
      const std::int32_t block = held[random() % held.size()];
      cache.insert(key_of(holds[block]), block);
    } else if (action == 2) {
      const std::uint64_t content = random() % 40;
      const std::int32_t block = cache.find(key_of(content));
      if (block >= 0) {
        REQUIRE(holds[block] == content);
        pool.retain(block);
        held.push_back(block);
      }
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      pool.release(held.back());
      held.pop_back();
    }
    const std::set<std::int32_t> distinct(held.begin(), held.end());
    REQUIRE(pool.num_free() == 13 - static_cast<std::int32_t>(distinct.size()));
    REQUIRE(pool.num_idle() <= cache.size() && cache.size() <= 9);
  }
  EXPECT(cache.evictions() > 1000);
  for (const std::int32_t block : held) pool.release(block);
  pool.check_all_free();
}
