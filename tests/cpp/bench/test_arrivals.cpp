// The steady rate of a closed load: the stretch of time, and what falls into it.
#include "bench/arrivals.h"

#include <algorithm>

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

TEST("arrivals: clients are busy from the first second request until one has none left") {
  for (const int late : {5, 12}) {  // the last client's first audio: before or behind the first end
    BusyStretch busy(3, 7);
    for (const int request : {0, 2}) busy.on_first_audio(request, at(request));
    if (late < 10) busy.on_first_audio(1, at(late));
    for (int end = 10; end < 14; ++end) {
      busy.on_end(at(end));
      if (end == 10) busy.on_first_audio(3, at(11));
      if (end == late) busy.on_first_audio(1, at(late));
      EXPECT(!busy.stretch());  // all seven are sent with the fourth end: nobody has run out yet
    }
    busy.on_end(at(20));
    REQUIRE(busy.stretch().has_value());
    EXPECT_NEAR(busy.stretch()->seconds(), 0.020 - 0.001 * std::max(late, 10), 1e-9);
    busy.on_end(at(30));
    busy.on_end(at(40));
    EXPECT_NEAR(busy.stretch()->seconds(), 0.020 - 0.001 * std::max(late, 10), 1e-9);
  }
}

TEST("arrivals: one request a client, or none in the end: there is no such time") {
  BusyStretch once(1, 1);
  once.on_first_audio(0, at(0));
  once.on_end(at(9));
  EXPECT(!once.stretch());
  BusyStretch busy(2, 2);
  busy.on_first_audio(0, at(0));
  busy.on_end(at(1));
  busy.on_first_audio(1, at(2));
  busy.on_end(at(3));
  EXPECT(!busy.stretch());
}
