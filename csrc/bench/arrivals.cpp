#include "bench/arrivals.h"

#include <algorithm>

namespace higgs_rt::bench {

double frames_within(std::span<const Arrival> arrivals, const Stretch& stretch) {
  double frames = 0;
  for (const Arrival& arrival : arrivals) {
    const Stretch common = {std::max(arrival.from, stretch.begin),
                            std::min(arrival.to, stretch.end)};
    if (common.end <= common.begin) continue;
    frames += arrival.frames * common.seconds() / Stretch{arrival.from, arrival.to}.seconds();
  }
  return frames;
}

void BusyStretch::on_end(std::int32_t request, Time now) {
  if (request < clients_ && --first_ == 0) begin_ = now;
  if (--last_ == 0) end_ = now;
}

std::optional<Stretch> BusyStretch::stretch() const {
  if (first_ > 0 || last_ > 0 || end_ <= begin_) return std::nullopt;
  return Stretch{begin_, end_};
}

}  // namespace higgs_rt::bench
