// Checks that throw Error with a formatted `[where] …` message.
#pragma once

#include <sstream>
#include <string>

#include "higgs_rt/error.h"

namespace higgs_rt {

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const char* where, const Parts&... parts) {
  std::ostringstream message;
  message << '[' << where << "] ";
  (message << ... << parts);
  throw Error(code, message.str());
}

// check(ok, "kv", "expected at least 1 block, got ", n)
template <class... Parts>
void check(bool ok, const char* where, const Parts&... parts) {
  if (!ok) fail(ErrorCode::kInvalidArgument, where, parts...);
}

// For conditions that only a defect of higgs_rt can break.
template <class... Parts>
void check_internal(bool ok, const char* where, const Parts&... parts) {
  if (!ok) fail(ErrorCode::kInternal, where, parts...);
}

}  // namespace higgs_rt
