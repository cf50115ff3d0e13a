#include <set>

#include "check.h"
#include "sampler/philox.h"
#include "sampler/statistics.h"

using namespace higgs_rt;
using namespace higgs_rt::testing;

namespace {

void expect_block(PhiloxBlock counter, std::uint64_t key, PhiloxBlock expected) {
  const PhiloxBlock got = philox(counter, key);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.word[i], expected.word[i]);
}

}  // namespace

// The published vectors of Random123 (kat_vectors, philox4x32 10).
TEST("philox: known answers") {
  expect_block({{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect_block({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffffffffffff,
               {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  expect_block({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822,
               {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

TEST("philox: seed, step, codebook and draw each matter, and all 24 bits are used") {
  std::set<std::uint32_t> seen;
  std::uint32_t ones = 0;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (std::uint32_t step = 0; step < 4; ++step) {
      for (std::uint32_t codebook = 0; codebook < 8; ++codebook) {
        for (Draw draw : {Draw::kCandidate, Draw::kResample}) {
          const std::uint32_t random = uniform_24_bits(seed, step, codebook, draw);
          EXPECT(random < (1u << 24));
          seen.insert(random);
          ones |= random;
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), std::size_t{4 * 4 * 8 * 2});
  EXPECT_EQ(ones, (1u << 24) - 1);
}

TEST("philox: uniform over steps") {
  std::vector<double> counts(64, 0);
  for (std::uint32_t step = 0; step < 64000; ++step) {
    counts[uniform_24_bits(7, step, 3, Draw::kCandidate) >> 18] += 1;
  }
  EXPECT(chi_square_p(counts, std::vector<double>(64, 1.0 / 64)) > kSmallestP);
}

// The p-values themselves, against tables of the chi-square distribution.
TEST("statistics: chi-square tail") {
  EXPECT_NEAR(upper_gamma(0.5, 3.841459 / 2), 0.05, 1e-6);    // 1 degree of freedom
  EXPECT_NEAR(upper_gamma(5, 18.307038 / 2), 0.05, 1e-6);     // 10
  EXPECT_NEAR(upper_gamma(50, 149.449253 / 2), 0.001, 1e-6);  // 100
  EXPECT(chi_square_p({600, 400}, {0.5, 0.5}) < 1e-9);
  EXPECT(chi_square_p({505, 495, 1}, {0.5, 0.5, 0.0}) == 0);
  EXPECT(independence_p({{100, 200}, {200, 100}}) < 1e-9);
}
