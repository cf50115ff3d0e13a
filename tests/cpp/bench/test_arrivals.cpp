// The steady rate of a closed load: the stretch of time, and what falls into it.
#include "bench/arrivals.h"

#include <vector>

#include "check.h"

using namespace higgs_rt::bench;

namespace {

Time at(int milliseconds) { return Time{} + std::chrono::milliseconds(1000 + milliseconds); }

}  // namespace

TEST("arrivals: a chunk counts with its share of the time in which it was made") {
  const std::vector<Arrival> arrivals = {
      {at(0), at(10), 8}, {at(10), at(50), 40}, {at(20), at(20), 5}, {at(60), at(90), 30}};
  EXPECT_NEAR(frames_within(arrivals, {at(0), at(100)}), 78, 1e-9);
  EXPECT_NEAR(frames_within(arrivals, {at(5), at(20)}), 4 + 10, 1e-9);
  EXPECT_NEAR(frames_within(arrivals, {at(50), at(60)}), 0, 1e-9);
  EXPECT_NEAR(frames_within(arrivals, {at(40), at(70)}), 10 + 10, 1e-9);
  // Stretches one after another lose nothing and count nothing twice.
  double sum = 0;
  for (int i = 0; i < 100; i += 7) sum += frames_within(arrivals, {at(i), at(i + 7)});
  EXPECT_NEAR(sum, 78, 1e-9);
}

TEST("arrivals: clients are busy from the end of all first requests until one has none left") {
  // Three clients, seven requests: the fifth end leaves a client without another.
  const auto stretch_of = [](const std::vector<std::int32_t>& order) {
    BusyStretch busy(3, 7);
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i < 5) EXPECT(!busy.stretch());
      busy.on_end(order[i], at(10 * static_cast<int>(i)));
    }
    return busy.stretch();
  };
  for (const std::vector<std::int32_t>& rest : {std::vector<std::int32_t>{}, {5, 6}}) {
    std::vector<std::int32_t> early = {0, 2, 1, 3, 4}, late = {0, 2, 3, 1, 4};
    early.insert(early.end(), rest.begin(), rest.end());
    late.insert(late.end(), rest.begin(), rest.end());
    REQUIRE(stretch_of(early).has_value() && stretch_of(late).has_value());
    EXPECT_NEAR(stretch_of(early)->seconds(), 0.020, 1e-9);
    EXPECT_NEAR(stretch_of(late)->seconds(), 0.010, 1e-9);
  }
  EXPECT(!stretch_of({0, 2, 3, 4, 5, 1, 6}));  // one was still at its first
}

TEST("arrivals: one request a client: there is no such time") {
  BusyStretch once(1, 1);
  once.on_end(0, at(9));
  EXPECT(!once.stretch());
  BusyStretch busy(2, 2);
  busy.on_end(0, at(1));
  busy.on_end(1, at(3));
  EXPECT(!busy.stretch());
}
