// Columns in, aligned frames out, with back-pressure.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "executor/executor.h"
#include "higgs_rt/types.h"
#include "sampler/delay_pattern.h"

namespace higgs_rt {

struct FrameStreamConfig {
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_size = 0;  // codes without BOS and EOS
  // Untaken frames that pause the request; 0: never. A reader that waits for n frames at once needs
  // at least n here.
  std::int32_t max_buffered_frames = 0;
  // Called when frames have come or the stream has finished, from the step thread with no lock
  // held. Must return quickly and not throw; it may call any function of the stream.
  std::function<void()> listener;
  // Called by take() when the request may go on: [&] { executor.wake(); }. Runs under the stream's
  // lock, and never after on_finish(), so the executor is still there.
  std::function<void()> wake;
};

// The answer to one request as frames: the executor writes (ColumnSink), one reader takes. Make it
// right before Executor::submit(): times count from its construction. Every function may be called
// from any thread.
class FrameStream : public ColumnSink {
 public:
  explicit FrameStream(FrameStreamConfig config);

  struct Taken {
    std::vector<std::int32_t> frames;  // [num_codebooks, num_frames] row-major
    std::int32_t num_frames = 0;
    bool finished = false;  // nothing is left and nothing will come; the rest is set
    FinishReason finish = FinishReason::kNone;
    std::string error;  // message when finish is kError
  };

  // Up to `max_frames` frames, in order, at once; none is an answer too. Frames that came before a
  // cancellation or error can still be taken.
  Taken take(std::int32_t max_frames);
  // Waits until `min_frames` frames can be taken or the stream has finished; false: `timeout`
  // passed.
  bool wait_for(std::int32_t min_frames, std::chrono::milliseconds timeout) const;

  std::int32_t available() const;  // frames that can be taken
  bool finished() const;           // on_finish() has come; frames may be left to take
  // Complete frames that held a BOS or EOS id and were dropped (specification 6.5).
  std::int32_t num_dropped() const;
  // All columns so far, [num_columns, num_codebooks], the BOS column first.
  std::vector<std::int32_t> columns() const;
  RequestTiming timing() const;  // first_chunk is the reader's own affair and stays -1

  void on_started() override;
  void on_column(std::span<const std::int32_t> column, bool ended) override;
  void on_finish(FinishReason reason, const std::string& error) override;
  bool paused() const override;

 private:
  using Clock = std::chrono::steady_clock;
  double seconds_since_start() const;
  std::int32_t available_locked() const;
  bool full_locked() const;

  const FrameStreamConfig config_;
  const Clock::time_point created_ = Clock::now();
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  FrameAssembler assembler_;
  std::vector<std::int32_t> columns_;  // [num_columns, num_codebooks]
  std::vector<std::int32_t> frames_;   // [frames, num_codebooks]; those before next_ are taken
  std::int32_t next_ = 0;
  bool finished_ = false;
  FinishReason finish_ = FinishReason::kNone;
  std::string error_;
  RequestTiming timing_;
};

}  // namespace higgs_rt
