// A small test harness: TEST registers a case, EXPECT_* record failures and go on, REQUIRE stops
// the case. main() is in main.cpp; `binary [filter]` runs the cases whose name contains filter.
#pragma once

#include <cmath>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace higgs_rt::testing {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Registration {
  Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

inline int& failures() {
  static int count = 0;
  return count;
}

struct StopCase {};
struct SkipCase {
  std::string why;
};

inline void report(const char* file, int line, const std::string& text) {
  ++failures();
  std::cerr << file << ':' << line << ": " << text << '\n';
}

// Runs `body` and returns the message of the std::exception it throws; "" when it throws none.
template <class Body>
std::string thrown(Body&& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace higgs_rt::testing

#define HIGGS_JOIN2(a, b) a##b
#define HIGGS_JOIN(a, b) HIGGS_JOIN2(a, b)
#define TEST(name) HIGGS_TEST_CASE(name, HIGGS_JOIN(test_case_, __LINE__))
#define HIGGS_TEST_CASE(name, id)                                              \
  static void id();                                                            \
  static const ::higgs_rt::testing::Registration HIGGS_JOIN(id, _r){name, id}; \
  static void id()

#define EXPECT(condition)                                                                      \
  do {                                                                                         \
    if (!(condition)) ::higgs_rt::testing::report(__FILE__, __LINE__, "expected " #condition); \
  } while (false)

#define EXPECT_EQ(actual, expected)                                          \
  do {                                                                       \
    const auto& actual_ = (actual);                                          \
    const auto& expected_ = (expected);                                      \
    if (!(actual_ == expected_)) {                                           \
      std::ostringstream text_;                                              \
      text_ << #actual << ": expected " << expected_ << ", got " << actual_; \
      ::higgs_rt::testing::report(__FILE__, __LINE__, text_.str());          \
    }                                                                        \
  } while (false)

#define EXPECT_NEAR(actual, expected, tolerance)                                              \
  do {                                                                                        \
    const double actual_ = static_cast<double>(actual);                                       \
    const double expected_ = static_cast<double>(expected);                                   \
    if (!(std::abs(actual_ - expected_) <= static_cast<double>(tolerance))) {                 \
      std::ostringstream text_;                                                               \
      text_ << #actual << ": expected " << expected_ << " within " << (tolerance) << ", got " \
            << actual_;                                                                       \
      ::higgs_rt::testing::report(__FILE__, __LINE__, text_.str());                           \
    }                                                                                         \
  } while (false)

#define REQUIRE(condition)                                                     \
  do {                                                                         \
    if (!(condition)) {                                                        \
      ::higgs_rt::testing::report(__FILE__, __LINE__, "required " #condition); \
      throw ::higgs_rt::testing::StopCase{};                                   \
    }                                                                          \
  } while (false)

// The body must throw a std::exception whose message contains `part`.
#define EXPECT_THROWS(body, part)                                                           \
  do {                                                                                      \
    const std::string text_ = ::higgs_rt::testing::thrown([&] { body; });                   \
    if (text_.find(part) == std::string::npos) {                                            \
      ::higgs_rt::testing::report(                                                          \
          __FILE__, __LINE__,                                                               \
          std::string("expected an error with \"") + (part) + "\", got \"" + text_ + "\""); \
    }                                                                                       \
  } while (false)

#define SKIP(why) \
  throw ::higgs_rt::testing::SkipCase { why }
