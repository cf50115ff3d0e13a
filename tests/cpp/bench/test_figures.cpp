// Figures of measured loads whose answers are known.
#include "bench/figures.h"

#include "check.h"

namespace higgs_rt::bench {
namespace {

Measured measured(double device_seconds) {
  Measured m;
  m.wall_seconds = 4;
  m.device_seconds = device_seconds;
  return m;
}

TEST("the host's share lies between nothing and all, or was not measured") {
  EXPECT_EQ(host_share(measured(3)), 0.25);
  EXPECT_EQ(host_share(measured(4)), 0.0);
  EXPECT_EQ(host_share(measured(4.1)), 0.0);  // device_seconds is an estimate
  EXPECT(host_share(measured(0)) < 0);
  EXPECT(to_json(measured(4.1)).find("\"host_share\": 0}") != std::string::npos);
}

}  // namespace
}  // namespace higgs_rt::bench
