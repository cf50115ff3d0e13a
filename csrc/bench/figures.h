// What is printed and written about a measured load.
#pragma once

#include <string>
#include <vector>

#include "bench/load.h"

namespace higgs_rt::bench {

// Share of the time in which the device had nothing to do, in [0, 1]; negative: not measured.
double host_share(const Measured& measured);

// `value` with so many digits behind the point.
std::string fixed(double value, int digits);

// The steady rate, "-" when there is none.
std::string steady(const Measured& measured);

// Seconds that a second of audio of one request takes; "-" where requests come as they come.
std::string real_time_factor(const Measured& measured);

// First audio of the first request of each client, and of the others. Of clients that send one
// request after another: none where requests come as they come.
std::vector<double> burst(const Measured& measured);
std::vector<double> later(const Measured& measured);

std::string to_json(const Measured& measured);

}  // namespace higgs_rt::bench
