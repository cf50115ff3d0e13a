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

TEST("first audio of clients is that of their first requests and of later ones") {
  Measured m = measured(3);
  m.concurrency = 2;
  m.requests = 3;
  m.audio_seconds = 16;
  m.first_audio = {0.1, 0.2, 0.3};
  EXPECT((burst(m) == std::vector<double>{0.1, 0.2}));
  EXPECT((later(m) == std::vector<double>{0.3}));
  EXPECT_EQ(real_time_factor(m), "0.500");
  m.requests = 2;
  m.first_audio.pop_back();
  EXPECT(later(m).empty());
  EXPECT(to_json(m).find("\"later_first_audio_p95\": null") != std::string::npos);
  m.poisson = true;
  EXPECT(burst(m).empty());
  EXPECT_EQ(real_time_factor(m), "-");
}

}  // namespace
}  // namespace higgs_rt::bench
