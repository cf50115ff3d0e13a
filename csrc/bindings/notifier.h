// How runtime threads tell a Python event loop which streams have something to read.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "higgs_rt/error.h"

namespace higgs_rt::bindings {

// A file descriptor that becomes readable when notify() is called, and the tokens given since. No
// GIL is needed to notify, so no runtime thread ever waits for Python.
class Notifier {
 public:
  Notifier() {
    if (::pipe(ends_) != 0) {
      throw Error(ErrorCode::kResourceExhausted,
                  std::string("[notifier] expected a pipe, got: ") + std::strerror(errno));
    }
    for (const int end : ends_) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  }
  ~Notifier() {
    for (const int end : ends_) ::close(end);
  }
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  int fd() const { return ends_[0]; }

  // Any thread. One byte is in the pipe while there are tokens, so writing never waits.
  void notify(std::int64_t token) {
    const std::scoped_lock lock(mutex_);
    tokens_.push_back(token);
    if (tokens_.size() > 1) return;
    const char byte = 0;
    while (::write(ends_[1], &byte, 1) < 0 && errno == EINTR) continue;
  }

  // The tokens since the last call, in order.
  std::vector<std::int64_t> take() {
    const std::scoped_lock lock(mutex_);
    if (tokens_.empty()) return {};
    char byte = 0;
    while (::read(ends_[0], &byte, 1) < 0 && errno == EINTR) continue;
    return std::exchange(tokens_, {});
  }

 private:
  int ends_[2] = {-1, -1};
  std::mutex mutex_;
  std::vector<std::int64_t> tokens_;
};

}  // namespace higgs_rt::bindings
