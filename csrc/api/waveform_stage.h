// The thread that turns frames of all streams into chunks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "api/speech_stream.h"

namespace higgs_rt {

// Goes round the streams that have not ended and lets each make at most one block of audio a turn,
// so a long request does not hold up the others. With a codec that gains from batches, the blocks
// that are ready are decoded together, those that begin a stream first, and chunks are delivered
// while the next batch is under way. Every function may be called from any thread.
class WaveformStage {
 public:
  // `codec` may be null: the streams have none; it must outlive the stage.
  explicit WaveformStage(Codec* codec);
  ~WaveformStage();
  WaveformStage(const WaveformStage&) = delete;
  WaveformStage& operator=(const WaveformStage&) = delete;

  // Takes part in the rounds until it has ended and nothing is left for its callback. After
  // shutdown() the stream is ended, and its callback served, by the calling thread.
  void add(const std::shared_ptr<SpeechStream>& stream);
  // There may be work.
  void notify();
  // Ends all streams as cancelled and joins the thread; idempotent. Their sources must have
  // finished, i.e. the executor is shut down. Throws kInvalidArgument in a callback.
  void shutdown();
  void check_caller() const;  // of shutdown()
  // True in a callback.
  bool is_current_thread() const { return std::this_thread::get_id() == own_id_; }
  // In a callback: the codec may be used afterwards. Chunks are delivered while a batch is under
  // way, whose codec no other call may enter, from the same thread least of all; so this ends it.
  void leave_codec();

 private:
  using Streams = std::vector<std::shared_ptr<SpeechStream>>;

  // A block that waits for the codec or is in it.
  struct Work {
    std::shared_ptr<SpeechStream> stream;
    Codec::Block block;
  };

  void run();
  bool one_by_one(Streams& active);
  bool together(Streams& active);
  bool collect(const Streams& active);
  std::vector<Work> next_batch();
  void stop();
  bool wait(Streams& active);

  Codec* const codec_;
  // Of the stage's thread.
  std::vector<Work> waiting_;
  bool decoding_ = false;  // a batch that has been started and not been finished

  std::mutex mutex_;
  std::condition_variable changed_;
  Streams added_;
  bool notified_ = false;
  bool stopped_ = false;
  std::mutex join_mutex_;
  std::atomic<std::thread::id> own_id_;  // of the thread while it runs
  std::thread thread_;
};

}  // namespace higgs_rt
