// Fewer sizes for tools under which a kernel takes hundreds of times as long.
#pragma once

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace higgs_rt::testing {

// tests/gpu/sanitize sets HIGGS_RT_TEST_FEW.
inline bool few_only() { return std::getenv("HIGGS_RT_TEST_FEW") != nullptr; }

// Under racecheck, which takes its time by the access to shared memory: one layer of a step, few
// outputs, but of inputs as many as fill every place of a queue more than twice.
inline bool fewest_only() {
  const char* few = std::getenv("HIGGS_RT_TEST_FEW");
  return few != nullptr && std::strcmp(few, "fewest") == 0;
}

// What a case goes through: all of it, or what still reaches every kernel and every path.
template <class T>
std::vector<T> all_or_few(std::vector<T> all, std::vector<T> few) {
  return few_only() ? few : all;
}
template <class T>
std::vector<T> all_few_or_fewest(std::vector<T> all, std::vector<T> few, std::vector<T> fewest) {
  return fewest_only() ? fewest : all_or_few(std::move(all), std::move(few));
}

}  // namespace higgs_rt::testing
