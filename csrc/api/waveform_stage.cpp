#include "api/waveform_stage.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

WaveformStage::WaveformStage(Codec* codec) : codec_(codec), thread_([this] { run(); }) {}

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
  own_id_ = std::this_thread::get_id();
  Streams active;
  const bool batches = codec_ != nullptr && codec_->has_batches();
  while (wait(active)) {
    if (batches ? together(active) : one_by_one(active)) notify();
  }
  for (const auto& stream : active) stream->abort();
  own_id_ = std::thread::id();  // another thread may get the same one
}

// One round. Returns whether any stream got anywhere.
bool WaveformStage::one_by_one(Streams& active) {
  // Nobody hears an answer that comes whole before its end. So where several are made, and nothing
  // else, longer blocks decode less context twice; one alone is decoded while its rest is made.
  const bool whole = active.size() > 1 && std::ranges::all_of(active, [](const auto& stream) {
                       return stream->comes_whole();
                     });
  const std::int32_t frames = whole ? 2 * Codec::kBlockFrames : Codec::kBlockFrames;
  bool progress = false;
  for (const auto& stream : active) progress = stream->advance(frames) || progress;
  std::erase_if(active, [](const auto& stream) { return stream->done(); });
  return progress;
}

// One round: the next batch, and the chunks of the one before.
bool WaveformStage::together(Streams& active) {
  bool progress = collect(active);
  std::vector<Work> batch = next_batch();
  std::vector<Codec::Block*> blocks;
  for (Work& work : batch) blocks.push_back(&work.block);
  if (!blocks.empty()) {
    codec_->start(blocks);
    decoding_ = true;
  }
  for (const auto& stream : active) progress = stream->deliver() || progress;
  std::erase_if(active, [](const auto& stream) { return stream->done(); });
  if (blocks.empty()) return progress;
  leave_codec();
  for (Work& work : batch) work.stream->end_block(std::move(work.block));
  return true;
}

void WaveformStage::leave_codec() {
  if (std::exchange(decoding_, false)) codec_->finish();
}

// Blocks that have become ready, into waiting_.
bool WaveformStage::collect(const Streams& active) {
  bool progress = false;
  for (const auto& stream : active) {
    std::optional<Codec::Block> block;
    progress = stream->begin_block(block) || progress;
    if (block) waiting_.push_back({stream, std::move(*block)});
  }
  return progress;
}

// Takes from waiting_ what can be decoded with the oldest block that begins a stream, or else with
// the oldest.
std::vector<WaveformStage::Work> WaveformStage::next_batch() {
  std::vector<Work> batch, later;
  std::stable_partition(waiting_.begin(), waiting_.end(),
                        [](const Work& work) { return work.block.first; });
  std::int32_t size = 0, room = 0;
  for (Work& work : waiting_) {
    if (batch.empty()) {
      size = codec_->batch_size(work.block);
      room = codec_->batch_jobs(size);
    }
    const bool fits = codec_->batch_size(work.block) == size && std::ssize(batch) < room;
    (fits ? batch : later).push_back(std::move(work));
  }
  waiting_ = std::move(later);
  return batch;
}

}  // namespace higgs_rt
