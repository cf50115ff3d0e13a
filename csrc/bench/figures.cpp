#include "bench/figures.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace higgs_rt::bench {

double host_share(const Measured& m) {
  // The device's time is an estimate, which may come out longer than the run.
  return m.device_seconds > 0 ? std::max(0.0, 1 - m.device_seconds / m.wall_seconds) : -1;
}

std::string fixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}

std::string steady(const Measured& m) {
  return m.steady_seconds == 0 ? "-" : fixed(m.steady_rate, 1);
}

std::string real_time_factor(const Measured& m) {
  return m.poisson ? "-" : fixed(m.wall_seconds * m.concurrency / m.audio_seconds, 3);
}

std::vector<double> burst(const Measured& m) {
  if (m.poisson) return {};
  return {m.first_audio.begin(), m.first_audio.begin() + std::min(m.concurrency, m.requests)};
}
std::vector<double> later(const Measured& m) {
  if (m.poisson) return {};
  return {m.first_audio.begin() + std::min(m.concurrency, m.requests), m.first_audio.end()};
}

namespace {
// "null" when there are no values.
std::string json_quantile(const std::vector<double>& values, double share) {
  if (values.empty()) return "null";
  std::ostringstream out;
  out << quantile(values, share);
  return out.str();
}
}  // namespace

std::string to_json(const Measured& m) {
  std::ostringstream out;
  out << "{\"concurrency\": " << m.concurrency << ", \"requests\": " << m.requests
      << ", \"frames\": " << m.frames << ", \"wall_seconds\": " << m.wall_seconds
      << ", \"audio_seconds\": " << m.audio_seconds << ", \"steady_rate\": " << m.steady_rate
      << ", \"steady_seconds\": " << m.steady_seconds
      << ", \"column_p50\": " << quantile(m.column_seconds, 0.5)
      << ", \"column_p99\": " << quantile(m.column_seconds, 0.99)
      << ", \"first_audio_p50\": " << quantile(m.first_audio, 0.5)
      << ", \"first_audio_p95\": " << quantile(m.first_audio, 0.95)
      << ", \"burst_first_audio_p50\": " << json_quantile(burst(m), 0.5)
      << ", \"burst_first_audio_p95\": " << json_quantile(burst(m), 0.95)
      << ", \"later_first_audio_p50\": " << json_quantile(later(m), 0.5)
      << ", \"later_first_audio_p95\": " << json_quantile(later(m), 0.95)
      << ", \"underruns\": " << m.underruns << ", \"mean_step\": " << m.step_seconds
      << ", \"steps\": " << m.steps << ", \"graph_steps\": " << m.graph_steps
      << ", \"graph_rows\": " << m.graph_rows << ", \"device_seconds\": " << m.device_seconds
      << ", \"graph_seconds\": " << m.graph_seconds << ", \"host_share\": " << host_share(m) << "}";
  return out.str();
}

}  // namespace higgs_rt::bench
