// The thread that turns frames of all streams into chunks.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "api/speech_stream.h"

namespace higgs_rt {

// Goes round the streams that have not ended and lets each make at most one block of audio a turn,
// so a long request does not hold up the others. Every function may be called from any thread.
class WaveformStage {
 public:
  WaveformStage();
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
  bool is_current_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  using Streams = std::vector<std::shared_ptr<SpeechStream>>;

  void run();
  void stop();
  bool wait(Streams& active);

  std::mutex mutex_;
  std::condition_variable changed_;
  Streams added_;
  bool notified_ = false;
  bool stopped_ = false;
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace higgs_rt
