// What a Runtime is made of, and what its streams share with it.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "api/backend.h"
#include "api/codec.h"
#include "api/speech_stream.h"
#include "api/waveform_stage.h"
#include "core/check.h"
#include "executor/executor.h"
#include "higgs_rt/runtime.h"
#include "sampler/sampler.h"

namespace higgs_rt {

// The process that loaded a runtime. A fork of it has no threads, and locks may be held there for
// ever: nothing can be asked or taken apart, so what the child drops is leaked.
class Process {
 public:
  bool is_current() const { return ::getpid() == id_; }
  void check_current() const {
    if (is_current()) return;
    fail(ErrorCode::kUnavailable, "runtime", "expected the process that loaded it, ", id_,
         ", got its fork ", ::getpid(), ": load after forking");
  }

 private:
  const ::pid_t id_ = ::getpid();
};

// Of a GPU, in bytes: free, and allocated through its Device.
struct Memory {
  std::int64_t free = 0, allocated = 0;
};

// Everything that streams may still refer to when the Runtime is gone. Members are destroyed in
// reverse order: the executor's thread first, then the stage that its streams notify.
struct Session {
  explicit Session(const RuntimeConfig& the_config);

  void wake_stage();   // by the step thread: once a step, not once for every column
  void note_memory();  // codec and executor have made their graphs
  void shutdown();     // the executor first: a stream ends when its source has

  const Process process;
  const RuntimeConfig config;
  Backend backend;
  const Memory before;           // the codec and the graphs
  std::unique_ptr<Codec> codec;  // null: none
  std::unique_ptr<Sampler> sampler;
  WaveformStage stage;
  bool has_news = false;  // streams have news for the stage; of the step thread
  Executor executor;
};

// What the copies of a Stream share.
class StreamState {
 public:
  StreamState(std::shared_ptr<SpeechStream> stream, std::weak_ptr<Session> session,
              std::uint64_t id)
      : stream_(std::move(stream)), session_(std::move(session)), id_(id) {}
  ~StreamState() {
    cancel();
    if (process_.is_current()) return;
    new std::shared_ptr(std::move(stream_));  // NOLINT(bugprone-unhandled-exception-at-new)
  }
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;

  SpeechStream& stream() {
    process_.check_current();
    return *stream_;
  }
  std::uint64_t id() const { return id_; }
  bool done() const { return !process_.is_current() || stream_->done(); }

  void cancel() {
    if (done()) return;
    stream_->cancel();
    if (const auto session = session_.lock()) {
      session->executor.cancel(id_);
      session->stage.notify();
    }
  }

  void on_chunk(std::function<void(const Chunk&)> callback) {
    stream().set_callback(std::move(callback));
    // The stage may have done with the stream already; it comes back for its callback.
    if (const auto session = session_.lock()) return session->stage.add(stream_);
    stream_->abort();
  }

 private:
  const Process process_;
  std::shared_ptr<SpeechStream> stream_;
  const std::weak_ptr<Session> session_;
  const std::uint64_t id_;
};

}  // namespace higgs_rt
