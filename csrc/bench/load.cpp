#include "bench/load.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <mutex>

namespace higgs_rt::bench {
namespace {

using Clock = std::chrono::steady_clock;

Request make_request(const Load& load, std::uint64_t seed, const ModelInfo& info) {
  Request request;
  auto& ids = request.prompt.emplace_back().ids;
  for (std::int32_t i = 0; i < load.prompt_tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>((seed * 31 + static_cast<std::uint64_t>(i) * 7) %
                                            static_cast<std::uint64_t>(info.text_vocab)));
  }
  request.sampling.seed = seed;
  if (load.endless) {
    request.sampling.top_k = 50;
    request.sampling.ras_window = 0;
  }
  request.max_columns = load.frames + info.num_codebooks;
  request.stream = true;
  request.output = load.waveform ? OutputKind::kWaveform : OutputKind::kFrames;
  if (!load.waveform) request.first_chunk_frames = request.max_chunk_frames = 1;
  return request;
}

// Collects the chunks of all requests; callbacks come from the runtime's thread.
class Collector {
 public:
  explicit Collector(std::int32_t count) : last_(static_cast<std::size_t>(count)), left_(count) {}

  void add(std::size_t request, const Chunk& chunk) {
    const auto now = Clock::now();
    const std::scoped_lock lock(mutex_);
    if (chunk.finish == FinishReason::kError && error_.empty()) error_ = chunk.error;
    num_frames_ += chunk.num_frames;
    if (chunk.num_frames > 0) {
      if (last_[request] != Clock::time_point{}) {
        intervals_.push_back(std::chrono::duration<double>(now - last_[request]).count());
      }
      last_[request] = now;
    }
    if (chunk.last && --left_ == 0) done_.set_value();
  }

  void wait(Measured& measured) {
    done_.get_future().get();
    const std::scoped_lock lock(mutex_);
    if (!error_.empty()) throw Error(ErrorCode::kInternal, error_);
    measured.audio_seconds = static_cast<double>(num_frames_) / 25;
    measured.column_seconds = std::move(intervals_);
  }

 private:
  std::mutex mutex_;
  std::promise<void> done_;
  std::vector<Clock::time_point> last_;
  std::int32_t left_;
  std::int64_t num_frames_ = 0;
  std::vector<double> intervals_;
  std::string error_;
};

}  // namespace

Measured run_load(Runtime& runtime, const Load& load) {
  Measured measured;
  measured.concurrency = load.concurrency;
  Collector collector(load.concurrency);
  const RuntimeStats before = runtime.stats();
  const auto start = Clock::now();
  std::vector<Stream> streams;
  for (std::int32_t i = 0; i < load.concurrency; ++i) {
    const auto index = static_cast<std::size_t>(i);
    streams.push_back(runtime.submit(make_request(load, index + 1, runtime.info())));
    streams.back().on_chunk(
        [&collector, index](const Chunk& chunk) { collector.add(index, chunk); });
  }
  collector.wait(measured);
  measured.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const RuntimeStats after = runtime.stats();
  measured.steps = after.steps - before.steps;
  measured.step_seconds =
      (after.step_seconds - before.step_seconds) / static_cast<double>(measured.steps);
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
