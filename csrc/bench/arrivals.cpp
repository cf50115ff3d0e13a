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

void BusyStretch::on_first_audio(std::int32_t request, Time now) {
  if (request < clients_ && --silent_ == 0) begin_ = now;
}

void BusyStretch::on_end(Time now) {
  if (!ended_) begin_ = std::max(begin_, now);
  ended_ = true;
  if (--last_ == 0) end_ = now;
}

std::optional<Stretch> BusyStretch::stretch() const {
  if (silent_ > 0 || last_ > 0 || end_ <= begin_) return std::nullopt;
  return Stretch{begin_, end_};
}

}  // namespace higgs_rt::bench
