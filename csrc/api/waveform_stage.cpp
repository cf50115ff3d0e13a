#include "api/waveform_stage.h"

#include <utility>

#include "core/check.h"

namespace higgs_rt {

WaveformStage::WaveformStage() : thread_([this] { run(); }) {}

WaveformStage::~WaveformStage() { stop(); }

void WaveformStage::add(const std::shared_ptr<SpeechStream>& stream) {
  bool stopped = false;
  {
    const std::scoped_lock lock(mutex_);
    stopped = stopped_;
    if (!stopped) added_.push_back(stream);
    notified_ = true;
  }
  if (stopped) return stream->abort();
  changed_.notify_one();
}

void WaveformStage::notify() {
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(notified_, true)) return;
  }
  changed_.notify_one();
}

void WaveformStage::check_caller() const {
  check(!is_current_thread(), "shutdown",
        "expected a call from outside of on_chunk, got one from inside");
}

void WaveformStage::shutdown() {
  check_caller();
  stop();
}

void WaveformStage::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  const std::scoped_lock lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

// Waits for work and takes new streams in. False: shut down.
bool WaveformStage::wait(Streams& active) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return notified_ || stopped_; });
  notified_ = false;
  for (auto& stream : added_) active.push_back(std::move(stream));
  added_.clear();
  return !stopped_;
}

void WaveformStage::run() {
  Streams active;
  while (wait(active)) {
    bool progress = false;
    for (const auto& stream : active) progress = stream->advance() || progress;
    std::erase_if(active, [](const auto& stream) { return stream->done(); });
    if (progress) notify();
  }
  for (const auto& stream : active) stream->abort();
}

}  // namespace higgs_rt
