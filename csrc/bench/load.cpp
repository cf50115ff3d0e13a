#include "bench/load.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "bench/arrivals.h"

namespace higgs_rt::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kFrameSeconds = 0.04;

std::int32_t frames_of(const Load& load, std::uint64_t index) {
  if (!load.vary_frames || load.requests == 1) return load.frames;
  // -1/4 .. +1/4 in steps that a few requests already spread out.
  const auto step = static_cast<std::int32_t>(index * 7 % 16) - 8;
  return std::max(1, load.frames + load.frames * step / 32);
}

// No two requests of a process have the same prompt, so that no cache of prompts can help.
Request make_request(const Load& load, std::uint64_t index, const ModelInfo& info) {
  static std::uint64_t seed = 0;
  ++seed;
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int32_t> id(0, info.text_vocab - 1);
  Request request;
  auto& ids = request.prompt.emplace_back().ids;
  for (std::int32_t i = 0; i < load.prompt_tokens; ++i) ids.push_back(id(random));
  request.sampling.seed = seed;
  if (load.endless) {
    request.sampling.top_k = std::min(50, info.codebook_vocab);
    request.sampling.ras_window = 0;
  }
  request.max_columns = frames_of(load, index) + info.num_codebooks;
  request.stream = true;
  request.output = load.waveform ? OutputKind::kWaveform : OutputKind::kFrames;
  if (!load.waveform) request.first_chunk_frames = request.max_chunk_frames = 1;
  return request;
}

// Collects the chunks of all requests; callbacks come from the runtime's thread.
class Collector {
 public:
  explicit Collector(const Load& load)
      : listeners_(static_cast<std::size_t>(load.requests)),
        left_(load.requests),
        busy_(load.concurrency, load.requests) {}

  void note_sent(std::size_t request) {
    const std::scoped_lock lock(mutex_);
    listeners_[request].last = Clock::now();
  }

  void add(std::size_t request, const Chunk& chunk) {
    const auto now = Clock::now();
    const std::scoped_lock lock(mutex_);
    if (chunk.finish == FinishReason::kError && error_.empty()) error_ = chunk.error;
    num_frames_ += chunk.num_frames;
    if (chunk.num_frames > 0) {
      arrivals_.push_back({listeners_[request].last, now, chunk.num_frames});
      hear(listeners_[request], now, chunk.num_frames);
    }
    if (!chunk.last) return;
    busy_.on_end(static_cast<std::int32_t>(request), now);
    ++ended_;
    --left_;
    changed_.notify_all();
  }

  // Waits until at most `running` of the `sent` requests run.
  void wait_for_room(std::int32_t sent, std::int32_t running) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return sent - ended_ <= running || !error_.empty(); });
  }

  void wait(Measured& measured) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return left_ == 0 || !error_.empty(); });
    if (!error_.empty()) throw Error(ErrorCode::kInternal, error_);
    measured.audio_seconds = static_cast<double>(num_frames_) * kFrameSeconds;
    measured.column_seconds = std::move(intervals_);
    measured.underruns = underruns_;
  }

  // Into `measured`: the steady rate of a load that ran in [start, end].
  void measure_steady(const Load& load, const Stretch& whole, Measured& measured) const {
    const auto quarter = (whole.end - whole.begin) / 4;
    const Stretch middle = {whole.begin + quarter, whole.end - quarter};
    const auto steady = load.arrival_rate > 0 ? std::optional(middle) : busy_.stretch();
    if (!steady) return;
    measured.steady_seconds = steady->seconds();
    measured.steady_rate = frames_within(arrivals_, *steady) * kFrameSeconds / steady->seconds();
  }

 private:
  struct Listener {
    Clock::time_point last;    // chunk; before the first one: when the request was sent
    Clock::time_point played;  // when everything that has come is played
    bool hears = false;
  };

  void hear(Listener& listener, Clock::time_point now, std::int32_t frames) {
    if (!listener.hears) {
      listener.hears = true;
      listener.played = now;
    } else {
      intervals_.push_back(std::chrono::duration<double>(now - listener.last).count());
      if (now > listener.played) {
        ++underruns_;
        listener.played = now;
      }
    }
    listener.last = now;
    listener.played += std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(frames * kFrameSeconds));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Listener> listeners_;
  std::int32_t left_;
  std::int32_t ended_ = 0;
  std::int64_t num_frames_ = 0;
  std::int64_t underruns_ = 0;
  std::vector<double> intervals_;
  std::vector<Arrival> arrivals_;
  BusyStretch busy_;
  std::string error_;
};

// Sends all requests of `load` as clients or arrivals ask for them.
std::vector<Stream> send_all(Runtime& runtime, const Load& load, Collector& collector) {
  std::vector<Stream> streams;
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(std::max(load.arrival_rate, 1e-9));
  auto due = Clock::now();
  for (std::int32_t i = 0; i < load.requests; ++i) {
    if (load.arrival_rate > 0) {
      std::this_thread::sleep_until(due);
      due +=
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(gap(random)));
    } else {
      collector.wait_for_room(i, load.concurrency - 1);
    }
    const auto index = static_cast<std::size_t>(i);
    collector.note_sent(index);
    streams.push_back(runtime.submit(make_request(load, index + 1, runtime.info())));
    streams.back().on_chunk(
        [&collector, index](const Chunk& chunk) { collector.add(index, chunk); });
  }
  return streams;
}

}  // namespace

Measured run_load(Runtime& runtime, const Load& load) {
  Measured measured;
  measured.concurrency = load.concurrency;
  measured.requests = load.requests;
  measured.frames = load.frames;
  measured.poisson = load.arrival_rate > 0;
  Collector collector(load);
  const RuntimeStats before = runtime.stats();
  const auto start = Clock::now();
  const std::vector<Stream> streams = send_all(runtime, load, collector);
  collector.wait(measured);
  const auto end = Clock::now();
  measured.wall_seconds = std::chrono::duration<double>(end - start).count();
  collector.measure_steady(load, {start, end}, measured);
  const RuntimeStats after = runtime.stats();
  measured.steps = after.steps - before.steps;
  measured.step_seconds =
      (after.step_seconds - before.step_seconds) / static_cast<double>(measured.steps);
  measured.device_seconds = after.device_seconds - before.device_seconds;
  measured.graph_steps = after.graph_steps - before.graph_steps;
  measured.graph_rows = after.graph_rows - before.graph_rows;
  measured.graph_seconds = after.graph_seconds - before.graph_seconds;
  for (const Stream& stream : streams) measured.first_audio.push_back(stream.timing().first_chunk);
  return measured;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto index = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index),
                   values.end());
  return values[index];
}

}  // namespace higgs_rt::bench
