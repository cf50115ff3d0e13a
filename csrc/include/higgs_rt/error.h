// Errors of the public C++ API.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace higgs_rt {

enum class ErrorCode {
  kInvalidArgument,    // a request, parameter or file content is wrong; nothing was changed
  kNotFound,           // a file, tensor or device that was named does not exist
  kResourceExhausted,  // queue, memory or KV blocks are used up; try again later or ask for less
  kUnsupported,        // this build or backend cannot do it
  kCancelled,          // the caller cancelled the request
  kUnavailable,        // the runtime is shutting down
  kInternal,           // a defect of higgs_rt
};

// Messages read `[where] expected X, got Y`.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace higgs_rt
