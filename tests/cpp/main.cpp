#include <cstring>

#include "check.h"

int main(int argc, char** argv) {
  using namespace higgs_rt::testing;
  const bool list = argc > 1 && std::strcmp(argv[1], "--list") == 0;
  const int first = list ? 2 : 1;
  const char* filter = argc > first ? argv[first] : "";
  int passed = 0;
  int failed = 0;
  int skipped = 0;
  for (const Case& test : cases()) {
    if (std::strstr(test.name, filter) == nullptr) continue;
    if (list) {
      std::cout << test.name << '\n';
      continue;
    }
    const int before = failures();
    try {
      test.body();
    } catch (const StopCase&) {
    } catch (const SkipCase& skip) {
      std::cout << "SKIP " << test.name << ": " << skip.why << '\n';
      ++skipped;
      continue;
    } catch (const std::exception& error) {
      report(test.name, 0, std::string("unexpected exception: ") + error.what());
    }
    const bool ok = failures() == before;
    std::cout << (ok ? "ok   " : "FAIL ") << test.name << std::endl;
    ++(ok ? passed : failed);
  }
  if (list) return 0;
  std::cout << passed << " passed, " << failed << " failed, " << skipped << " skipped\n";
  return failed == 0 && passed + skipped > 0 ? 0 : 1;
}
