// Fewer sizes for tools under which a kernel takes hundreds of times as long.
#pragma once

#include <cstdlib>
#include <cstring>
#include <vector>

namespace higgs_rt::testing {

// tests/gpu/sanitize sets HIGGS_RT_TEST_FEW.
inline bool few_only() { return std::getenv("HIGGS_RT_TEST_FEW") != nullptr; }

// Under racecheck, where a step of the released shape keeps the machine for half a minute and more:
// one layer.
inline bool fewest_only() {
  const char* few = std::getenv("HIGGS_RT_TEST_FEW");
  return few != nullptr && std::strcmp(few, "fewest") == 0;
}

// What a case goes through: all of it, or what still reaches every kernel and every path.
template <class T>
std::vector<T> all_or_few(std::vector<T> all, std::vector<T> few) {
  return few_only() ? few : all;
}

}  // namespace higgs_rt::testing
