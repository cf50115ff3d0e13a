// When audio came, and how much of it in a stretch of time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace higgs_rt::bench {

using Time = std::chrono::steady_clock::time_point;

// A chunk: `from` is when the request's chunk before it came, or when the request was sent.
struct Arrival {
  Time from, to;
  std::int32_t frames = 0;
};

struct Stretch {
  Time begin, end;
  double seconds() const { return std::chrono::duration<double>(end - begin).count(); }
};

// The frames that fall into the stretch when every chunk is spread evenly over the time from its
// `from` to its `to`: so a chunk that comes within counts with the part of it that can have been
// made within, whatever the sizes of chunks are.
double frames_within(std::span<const Arrival> arrivals, const Stretch& stretch);

// Watches a closed load: `clients` at once send `requests` in all, numbered in the order of their
// sending. For one thread at a time.
class BusyStretch {
 public:
  BusyStretch(std::int32_t clients, std::int32_t requests)
      : clients_(clients), first_(clients), last_(requests - clients + 1) {}

  void on_end(std::int32_t request, Time now);
  // From the moment when every client has ended its first request (those began together) to the
  // moment when the first client has no request left: all are busy, and as many requests end as
  // begin. None when that is not a time at all.
  std::optional<Stretch> stretch() const;

 private:
  std::int32_t clients_;
  std::int32_t first_;  // clients whose first request has not ended
  std::int32_t last_;   // ends until a client has no request left
  Time begin_, end_;
};

}  // namespace higgs_rt::bench
