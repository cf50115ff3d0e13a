#include <bit>

#include "check.h"
#include "model/rope_table.h"

using namespace higgs_rt;

namespace {

RopeConfig released(double low, double high, double positions) {
  RopeConfig rope;
  rope.theta = 500000;
  rope.scaled = true;
  rope.factor = 32;
  rope.low_freq_factor = low;
  rope.high_freq_factor = high;
  rope.original_positions = positions;
  return rope;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  }
  return true;
}

}  // namespace

TEST("rope: check values of the released scaling (specification 3.4)") {
  const auto f = inverse_frequencies(released(1, 4, 8192), 128);
  REQUIRE(f.size() == 64);
  EXPECT_EQ(f[0], 1.0f);
  EXPECT_NEAR(f[29], 2.1184068e-3, 1e-10);
  EXPECT_NEAR(f[30], 1.2905480e-3, 1e-10);
  EXPECT_NEAR(f[35], 2.3890531e-5, 1e-12);
  EXPECT_NEAR(f[63], 7.6723147e-8, 1e-15);
  RopeConfig plain;
  plain.theta = 500000;
  const auto base = inverse_frequencies(plain, 128);
  for (std::size_t i = 0; i < 64; ++i) {
    if (i <= 28) EXPECT_EQ(f[i], base[i]);
    if (i >= 35) EXPECT_EQ(f[i], base[i] / 32.0f);
    if (i > 28 && i < 35) EXPECT(f[i] < base[i] && f[i] > base[i] / 32.0f);
  }
}

TEST("rope: both published forms give the same bits") {
  for (const std::int32_t dim : {8, 16, 64, 128}) {
    EXPECT(same_bits(inverse_frequencies(released(1, 4, 8192), dim),
                     inverse_frequencies(released(0.125, 0.5, 1024), dim)));
  }
  // A mix of the two is another model.
  EXPECT(!same_bits(inverse_frequencies(released(1, 4, 8192), 128),
                    inverse_frequencies(released(0.125, 0.5, 8192), 128)));
}

TEST("rope: table of cosines and sines") {
  const RopeConfig rope = released(1, 4, 8192);
  const auto f = inverse_frequencies(rope, 16);
  const auto table = rope_table(rope, 16, 3000);
  REQUIRE(table.size() == 3000u * 8 * 2);
  EXPECT_EQ(table[0], 1.0f);
  EXPECT_EQ(table[1], 0.0f);
  for (const std::size_t position : {1u, 77u, 2999u}) {
    for (std::size_t i = 0; i < 8; ++i) {
      const double angle = static_cast<double>(static_cast<float>(position) * f[i]);
      EXPECT_NEAR(table[(position * 8 + i) * 2], std::cos(angle), 1e-7);
      EXPECT_NEAR(table[(position * 8 + i) * 2 + 1], std::sin(angle), 1e-7);
    }
  }
}
