#include "executor/output_stream.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {

FrameStream::FrameStream(FrameStreamConfig config)
    : config_(std::move(config)), assembler_(config_.num_codebooks, config_.codebook_size) {
  check(config_.max_buffered_frames >= 0, "frame_stream",
        "max_buffered_frames: expected at least 0, got ", config_.max_buffered_frames);
  check(config_.max_buffered_frames == 0 || config_.wake, "frame_stream",
        "wake: expected a function, as max_buffered_frames is ", config_.max_buffered_frames);
}

double FrameStream::seconds_since_start() const {
  return std::chrono::duration<double>(Clock::now() - created_).count();
}

std::int32_t FrameStream::available_locked() const {
  return static_cast<std::int32_t>(frames_.size()) / config_.num_codebooks - next_;
}

bool FrameStream::full_locked() const {
  return config_.max_buffered_frames > 0 && available_locked() >= config_.max_buffered_frames;
}

FrameStream::Taken FrameStream::take(std::int32_t max_frames) {
  const std::scoped_lock lock(mutex_);
  const bool was_full = full_locked();
  Taken taken;
  taken.num_frames = std::clamp(max_frames, 0, available_locked());
  const auto width = static_cast<std::size_t>(config_.num_codebooks);
  const auto count = static_cast<std::size_t>(taken.num_frames);
  taken.frames.resize(width * count);
  for (std::size_t j = 0; j < count; ++j) {
    for (std::size_t k = 0; k < width; ++k) {
      taken.frames[k * count + j] = frames_[(static_cast<std::size_t>(next_) + j) * width + k];
    }
  }
  next_ += taken.num_frames;
  if (finished_ && available_locked() == 0) {
    taken.finished = true;
    taken.finish = finish_;
    taken.error = error_;
  }
  if (was_full && !full_locked() && !finished_) config_.wake();
  return taken;
}

bool FrameStream::wait_for(std::int32_t min_frames, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout,
                           [&] { return finished_ || available_locked() >= min_frames; });
}

std::int32_t FrameStream::available() const {
  const std::scoped_lock lock(mutex_);
  return available_locked();
}

bool FrameStream::finished() const {
  const std::scoped_lock lock(mutex_);
  return finished_;
}

std::int32_t FrameStream::num_dropped() const {
  const std::scoped_lock lock(mutex_);
  return assembler_.num_dropped();
}

std::vector<std::int32_t> FrameStream::columns() const {
  const std::scoped_lock lock(mutex_);
  return columns_;
}

RequestTiming FrameStream::timing() const {
  const std::scoped_lock lock(mutex_);
  return timing_;
}

void FrameStream::on_started() {
  const std::scoped_lock lock(mutex_);
  timing_.started = seconds_since_start();
}

void FrameStream::on_column(std::span<const std::int32_t> column, bool ended) {
  {
    const std::scoped_lock lock(mutex_);
    // Column 0 is synthetic; column 1 is the first that the model made.
    if (columns_.size() == column.size()) timing_.first_column = seconds_since_start();
    columns_.insert(columns_.end(), column.begin(), column.end());
    if (!assembler_.push(column, ended)) return;
    const auto frame = assembler_.frame();
    frames_.insert(frames_.end(), frame.begin(), frame.end());
  }
  changed_.notify_all();
  if (config_.listener) config_.listener();
}

void FrameStream::on_finish(FinishReason reason, const std::string& error) {
  {
    const std::scoped_lock lock(mutex_);
    finished_ = true;
    finish_ = reason;
    error_ = error;
    timing_.finished = seconds_since_start();
  }
  changed_.notify_all();
  if (config_.listener) config_.listener();
}

bool FrameStream::paused() const {
  const std::scoped_lock lock(mutex_);
  return full_locked();
}

}  // namespace higgs_rt
