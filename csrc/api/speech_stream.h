// One request between the executor, the waveform stage and its reader.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/codec.h"
#include "executor/output_stream.h"
#include "higgs_rt/runtime.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

struct SpeechStreamConfig {
  OutputKind output = OutputKind::kWaveform;
  bool stream = false;
  std::int32_t first_chunk_frames = 0;
  std::int32_t max_chunk_frames = 0;
  std::int32_t max_buffered_chunks = 0;
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_size = 0;  // codes without BOS and EOS
  std::function<void()> wake_executor;
  std::function<void()> wake_stage;  // there may be work for advance()
  // In place of wake_stage when the executor's thread has brought frames or the end.
  std::function<void()> note_news = {};
};

// Turns frames into chunks (specification 8.2): with m frames known, those before m - context are
// decoded for good; the rest follows at the end. Chunks wait here for a reader or are handed to a
// callback. Every function may be called from any thread, except where stated.
class SpeechStream {
 public:
  // `codec` may be null for OutputKind::kFrames. Make it right before Executor::submit(): times
  // count from here. The functions of `config` must stay callable until the stream has ended.
  SpeechStream(SpeechStreamConfig config, Codec* codec);

  const std::shared_ptr<FrameStream>& source() const { return source_; }

  // --- Reader ---
  // No timeout: waits. Throws the request's error once, in place of its last chunk.
  Stream::Poll next(Chunk& chunk, std::optional<std::chrono::milliseconds> timeout);
  // Throws kInvalidArgument on a second call.
  void set_callback(std::function<void(const Chunk&)> callback);
  // Throws kInvalidArgument on a second call.
  void set_listener(std::function<void()> listener);
  // From now on nothing is decoded; once the source has finished, so does the stream.
  void cancel();
  bool done() const;  // the last chunk is made
  bool comes_whole() const { return !config_.stream; }
  RequestTiming timing() const;

  // --- Waveform stage, one thread at a time ---
  // None throws: a failure ends the stream with its message. Those that return a bool say whether
  // they got anywhere.

  // Takes frames, makes at most one block of audio and hands chunks to the callback: the next three
  // and the codec's work between them.
  bool advance(std::int32_t block_frames = Codec::kBlockFrames);
  // `block_frames`: of a block of an answer that comes whole, on a decoder that takes any size.
  // Takes frames and does what needs no codec. `block`, empty before, is what the codec is to
  // decode next; then end_block() must follow, and until then this does nothing.
  bool begin_block(std::optional<Codec::Block>& block,
                   std::int32_t block_frames = Codec::kBlockFrames);
  void end_block(Codec::Block&& block);
  // Hands waiting chunks to the callback, if there is one.
  bool deliver();
  // Ends the stream as cancelled unless it has ended, and hands chunks to the callback. The source
  // must have finished.
  void abort();

 private:
  using Clock = std::chrono::steady_clock;

  bool make_progress(std::optional<Codec::Block>& block);
  bool deliver_chunks();
  std::int32_t missing() const;
  void pull();
  bool queue_full() const;
  void append(std::int32_t count, const std::vector<float>& pcm);
  void flush(bool last);
  void finish(FinishReason reason, const std::string& error);
  double seconds() const;

  const SpeechStreamConfig config_;
  Codec* const codec_;
  const Clock::time_point created_ = Clock::now();
  const std::shared_ptr<FrameStream> source_;
  std::atomic<bool> cancelled_ = false;

  std::mutex work_mutex_;             // of the stage's functions; callbacks run under it
  std::vector<std::int32_t> frames_;  // [known_, num_codebooks], all since the start
  std::int32_t known_ = 0;
  std::int32_t decoded_ = 0;  // frames that are in a chunk or in chunk_
  std::int32_t target_ = 0;   // frames of the next chunk, or block when there is one chunk only
  bool decoding_ = false;     // between begin_block() and end_block()
  bool complete_ = false;     // no more frames will come
  FinishReason finish_ = FinishReason::kNone;
  std::string error_;
  Chunk chunk_;  // being made; frames [n, num_codebooks] until flush()

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Chunk> chunks_;
  bool made_last_ = false;
  bool gave_last_ = false;
  std::shared_ptr<std::function<void(const Chunk&)>> callback_;  // until the last chunk
  bool has_callback_ = false;
  std::shared_ptr<std::function<void()>> listener_;
  double first_chunk_ = -1;
  double finished_ = -1;
};

}  // namespace higgs_rt
