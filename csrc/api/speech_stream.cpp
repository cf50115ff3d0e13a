#include "api/speech_stream.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace higgs_rt {
namespace {

// A reader that is slower than the model pauses its request when this many frames wait for the
// stage besides the chunks that wait for the reader.
std::int32_t max_buffered_frames(const SpeechStreamConfig& config, std::int32_t context) {
  return config.stream ? 2 * config.max_chunk_frames + context : 0;
}

std::int32_t context_of(const SpeechStreamConfig& config, const Codec* codec) {
  return config.output == OutputKind::kWaveform ? codec->spec().context_frames : 0;
}

FrameStreamConfig source_config(const SpeechStreamConfig& config, const Codec* codec) {
  return {.num_codebooks = config.num_codebooks,
          .codebook_size = config.codebook_size,
          .max_buffered_frames = max_buffered_frames(config, context_of(config, codec)),
          .listener = config.note_news ? config.note_news : config.wake_stage,
          .wake = config.wake_executor};
}

// [n, books] -> [books, n]
std::vector<std::int32_t> transposed(const std::vector<std::int32_t>& frames, std::size_t books) {
  const std::size_t count = frames.size() / books;
  std::vector<std::int32_t> out(frames.size());
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t k = 0; k < books; ++k) out[k * count + t] = frames[t * books + k];
  }
  return out;
}

}  // namespace

SpeechStream::SpeechStream(SpeechStreamConfig config, Codec* codec)
    : config_(std::move(config)),
      codec_(codec),
      source_(std::make_shared<FrameStream>(source_config(config_, codec))),
      target_(config_.stream ? config_.first_chunk_frames : Codec::kBlockFrames) {}

double SpeechStream::seconds() const {
  return std::chrono::duration<double>(Clock::now() - created_).count();
}

// A longer wait would overflow the clock.
constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24 * 365);

// --- Reader -----------------------------------------------------------------------------------

Stream::Poll SpeechStream::next(Chunk& chunk, std::optional<std::chrono::milliseconds> timeout) {
  bool was_full = false;
  {
    std::unique_lock lock(mutex_);
    check(!has_callback_, "stream", "expected next() or on_chunk(), got both");
    const auto ready = [&] { return gave_last_ || !chunks_.empty(); };
    if (!timeout) {
      changed_.wait(lock, ready);
    } else if (!changed_.wait_for(lock, std::min(*timeout, kLongest), ready)) {
      return Stream::Poll::kTimeout;
    }
    if (gave_last_) return Stream::Poll::kEnd;
    was_full = std::ssize(chunks_) >= config_.max_buffered_chunks && !made_last_;
    chunk = std::move(chunks_.front());
    chunks_.pop_front();
    gave_last_ = chunk.last;
    // Under the lock and not after the last chunk, so that the stage is still there.
    if (was_full) config_.wake_stage();
  }
  if (chunk.finish == FinishReason::kError) throw Error(ErrorCode::kInternal, chunk.error);
  return Stream::Poll::kChunk;
}

void SpeechStream::set_callback(std::function<void(const Chunk&)> callback) {
  check(callback != nullptr, "on_chunk", "expected a function, got none");
  const std::scoped_lock lock(mutex_);
  check(!has_callback_, "on_chunk", "expected one callback per stream, got a second one");
  callback_ = std::make_shared<std::function<void(const Chunk&)>>(std::move(callback));
  has_callback_ = true;
}

void SpeechStream::set_listener(std::function<void()> listener) {
  check(listener != nullptr, "on_ready", "expected a function, got none");
  const auto shared = std::make_shared<std::function<void()>>(std::move(listener));
  {
    const std::scoped_lock lock(mutex_);
    check(listener_ == nullptr, "on_ready", "expected one listener per stream, got a second one");
    listener_ = shared;
    if (chunks_.empty() && !made_last_) return;
  }
  (*shared)();
}

void SpeechStream::cancel() { cancelled_ = true; }

bool SpeechStream::done() const {
  const std::scoped_lock lock(mutex_);
  return made_last_;
}

RequestTiming SpeechStream::timing() const {
  RequestTiming timing = source_->timing();
  const std::scoped_lock lock(mutex_);
  timing.first_chunk = first_chunk_;
  timing.finished = finished_;
  return timing;
}

// --- Waveform stage ---------------------------------------------------------------------------

bool SpeechStream::advance(std::int32_t block_frames) {
  std::optional<Codec::Block> block;
  const bool progress = begin_block(block, block_frames);
  if (block) {
    codec_->decode(*block);
    end_block(std::move(*block));
  }
  return deliver() || progress;
}

bool SpeechStream::begin_block(std::optional<Codec::Block>& block, std::int32_t block_frames) {
  const std::scoped_lock lock(work_mutex_);
  if (decoding_ || done()) return false;
  if (comes_whole()) target_ = block_frames;
  try {
    const bool progress = make_progress(block);
    decoding_ = block.has_value();
    return progress;
  } catch (const std::exception& error) {
    block.reset();
    finish(FinishReason::kError, error.what());
    return true;
  }
}

void SpeechStream::end_block(Codec::Block&& block) {
  const std::scoped_lock lock(work_mutex_);
  decoding_ = false;
  if (done()) return;  // aborted
  try {
    if (block.error.empty()) return append(block.end - block.begin, block.pcm);
    finish(FinishReason::kError, block.error);
  } catch (const std::exception& error) {
    finish(FinishReason::kError, error.what());
  }
}

bool SpeechStream::deliver() {
  const std::scoped_lock lock(work_mutex_);
  return deliver_chunks();
}

void SpeechStream::abort() {
  const std::scoped_lock lock(work_mutex_);
  if (!done()) finish(FinishReason::kCancelled, "");
  deliver_chunks();
}

bool SpeechStream::make_progress(std::optional<Codec::Block>& block) {
  if (cancelled_) {
    if (!source_->finished()) return false;
    finish(FinishReason::kCancelled, "");
    return true;
  }
  if (queue_full()) return false;
  pull();
  if (complete_ && (finish_ == FinishReason::kError || finish_ == FinishReason::kCancelled)) {
    finish(finish_, error_);
    return true;
  }
  const std::int32_t usable = complete_ ? known_ : known_ - context_of(config_, codec_);
  const std::int32_t ready = std::min(usable - decoded_, missing());
  if (ready < missing() && !complete_) return false;
  if (config_.output == OutputKind::kWaveform && ready > 0) {
    const std::int32_t most = comes_whole() ? target_ : Codec::kBlockFrames;
    block = codec_->block(frames_, decoded_, decoded_ + std::min(ready, most));
  } else {
    append(ready, {});
  }
  return true;
}

// Frames that the next chunk or block lacks.
std::int32_t SpeechStream::missing() const {
  if (!config_.stream) return target_;
  return target_ - static_cast<std::int32_t>(std::ssize(chunk_.frames)) / config_.num_codebooks;
}

// Takes the frames that the next block needs, and no more: what is not taken pauses the request.
void SpeechStream::pull() {
  if (complete_) return;
  const std::int32_t wanted = decoded_ + missing() + context_of(config_, codec_) - known_;
  FrameStream::Taken taken = source_->take(std::max(wanted, 0));
  const auto count = static_cast<std::size_t>(taken.num_frames);
  for (std::size_t t = 0; t < count; ++t) {
    for (std::int32_t k = 0; k < config_.num_codebooks; ++k) {
      frames_.push_back(taken.frames[static_cast<std::size_t>(k) * count + t]);
    }
  }
  known_ += taken.num_frames;
  if (!taken.finished) return;
  complete_ = true;
  finish_ = taken.finish;
  error_ = std::move(taken.error);
}

bool SpeechStream::queue_full() const {
  const std::scoped_lock lock(mutex_);
  return std::ssize(chunks_) >= config_.max_buffered_chunks;
}

// The next `count` frames and their samples into chunk_, and chunk_ to the reader when it is full.
void SpeechStream::append(std::int32_t count, const std::vector<float>& pcm) {
  const auto books = static_cast<std::ptrdiff_t>(config_.num_codebooks);
  chunk_.pcm.insert(chunk_.pcm.end(), pcm.begin(), pcm.end());
  chunk_.frames.insert(chunk_.frames.end(), frames_.begin() + decoded_ * books,
                       frames_.begin() + (decoded_ + count) * books);
  decoded_ += count;
  if (complete_ && decoded_ == known_) {
    finish(finish_, "");
  } else if (config_.stream && missing() <= 0) {
    flush(false);
    target_ = std::min(2 * target_, config_.max_chunk_frames);
  }
}

// Hands chunk_ over. A block without frames is passed on only as the last one.
void SpeechStream::flush(bool last) {
  Chunk chunk = std::exchange(chunk_, {});
  const auto books = static_cast<std::size_t>(config_.num_codebooks);
  chunk.num_codebooks = config_.num_codebooks;
  chunk.num_frames = static_cast<std::int32_t>(chunk.frames.size() / books);
  chunk.frames = transposed(chunk.frames, books);
  chunk.last = last;
  if (last) {
    chunk.finish = finish_;
    chunk.error = error_;
    chunk.columns = source_->columns();
  }
  std::shared_ptr<std::function<void()>> listener;
  {
    const std::scoped_lock lock(mutex_);
    listener = listener_;
    if (first_chunk_ < 0) first_chunk_ = seconds();
    if (last) finished_ = seconds();
    made_last_ = last;
    chunks_.push_back(std::move(chunk));
  }
  changed_.notify_all();
  if (listener) (*listener)();
}

// Makes the last chunk.
void SpeechStream::finish(FinishReason reason, const std::string& error) {
  complete_ = true;
  finish_ = reason;
  error_ = error;
  flush(true);
}

bool SpeechStream::deliver_chunks() {
  bool delivered = false;
  while (true) {
    Chunk chunk;
    std::shared_ptr<std::function<void(const Chunk&)>> callback;
    {
      const std::scoped_lock lock(mutex_);
      if (!has_callback_ || chunks_.empty()) return delivered;
      chunk = std::move(chunks_.front());
      chunks_.pop_front();
      gave_last_ = chunk.last;
      callback = chunk.last ? std::exchange(callback_, nullptr) : callback_;
    }
    (*callback)(chunk);
    delivered = true;
  }
}

}  // namespace higgs_rt
