// C++ API: load a model, submit requests, read chunks of speech.
//
//   auto runtime = higgs_rt::Runtime::load({.model_dir = "model"});
//   higgs_rt::Stream stream = runtime->submit(request);
//   higgs_rt::Chunk chunk;
//   while (stream.next(chunk)) play(chunk.pcm);
//
// Every function may be called from any thread. Nothing here survives fork(): load after forking.
// In a fork of the process that loaded, streams and runtimes can be dropped; other calls are
// refused with kUnavailable.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "higgs_rt/error.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

class StreamState;  // internal

// A request in flight. Copies refer to the same request. Dropping the last copy cancels it.
class Stream {
 public:
  Stream() = default;
  explicit Stream(std::shared_ptr<StreamState> state);

  // Waits for the next chunk. Returns false when the last chunk has been delivered before.
  // The last chunk carries the finish reason; an error of the request is thrown as Error.
  bool next(Chunk& chunk);

  enum class Poll { kChunk, kTimeout, kEnd };
  Poll next_for(Chunk& chunk, std::chrono::milliseconds timeout);

  // Calls `on_chunk` from a runtime thread for every chunk, the last one included (errors are in
  // Chunk::error, nothing is thrown). Use either this, once, or next(). It must not block for long
  // and must not throw.
  void on_chunk(std::function<void(const Chunk&)> callback);

  // Calls `listener` from a runtime thread whenever a chunk can be taken with next() or next_for(),
  // and at once when one can be already: for callers that wait for many streams in a loop of their
  // own. Unlike with on_chunk(), chunks that are not taken pause the request. Once per stream. It
  // must return quickly, not throw, and call nothing of the stream; it may be called once more
  // right after the last chunk has been taken.
  void on_ready(std::function<void()> listener);

  void cancel();  // returns at once; the stream ends with FinishReason::kCancelled
  bool done() const;
  RequestTiming timing() const;
  std::uint64_t id() const;

 private:
  std::shared_ptr<StreamState> state_;
};

class Runtime {
 public:
  // Loads checkpoint and codec. Throws Error that names the file, tensor or field at fault.
  static std::unique_ptr<Runtime> load(const RuntimeConfig& config);
  ~Runtime();  // shutdown(); in a callback of on_chunk it does not wait for the end

  // Throws Error: kInvalidArgument (names field, value and limit), kResourceExhausted (queue full),
  // kUnavailable (shut down).
  Stream submit(const Request& request);

  // Codes [num_codebooks, num_frames] -> mono PCM [num_frames * samples_per_frame].
  std::vector<float> decode_frames(const std::vector<std::int32_t>& codes, std::int32_t num_frames);

  const ModelInfo& info() const;
  RuntimeStats stats() const;
  // Cancels what runs or waits and joins all threads; idempotent. Throws kInvalidArgument in a
  // callback of on_chunk.
  void shutdown();

  struct Impl;
  explicit Runtime(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

const char* version();
// One line: version, compiler, backends that are linked, instruction set in use.
std::string build_info();

}  // namespace higgs_rt
