// Batches requests in flight: schedule -> forward -> sample -> publish, on one thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/engine.h"
#include "higgs_rt/types.h"
#include "sampler/sampler.h"

namespace higgs_rt {

// Receives the columns of one request. The three calls come from the step thread, in order, with no
// lock held; they must return quickly and not throw, and must not call Executor::shutdown().
// paused() is asked by the step thread too.
class ColumnSink {
 public:
  virtual ~ColumnSink() = default;
  virtual void on_started() {}
  // Columns 0 (all BOS, synthetic), 1, 2, …; [num_codebooks]. The column that ends the stream is
  // included; `ended` is true for it alone (a length stop is no such end).
  virtual void on_column(std::span<const std::int32_t> column, bool ended) = 0;
  // Exactly once, and last, for every request that submit() accepted.
  virtual void on_finish(FinishReason reason, const std::string& error) = 0;
  // Back-pressure: while true, the request is left out of the batch (it keeps its blocks unless
  // they are needed). Executor::wake() must be called when it turns false.
  virtual bool paused() const { return false; }
};

inline constexpr std::int32_t kMaxQueue = 1'000'000;

struct ExecutorConfig {
  // Requests running at the same time, paused ones included. At most EngineSpec::max_sequences, and
  // the sampler must have that many rows.
  std::int32_t max_batch = 32;
  std::int32_t max_queue = 256;  // waiting requests, 1..kMaxQueue
  // Rows of one step; decode rows come first. max_batch + 1 .. EngineSpec::max_rows.
  std::int32_t max_step_tokens = 256;
  // Steps that new requests may wait for others, so that their prompts interrupt the running ones
  // together (scheduler.h). At least 0.
  std::int32_t max_held_steps = 0;
  // Prompt positions + max_columns of one request. At most EngineSpec::max_positions.
  std::int32_t max_sequence = 4096;
  // Share of the KV blocks, 0 to 1, that may hold prompt prefixes for requests to come; 0: none.
  // Of no effect when the engine's blocks cannot be shared.
  double prefix_cache = 0.25;
};

class Executor {
 public:
  // `engine` and `sampler` must outlive the executor and are driven by its thread alone.
  // `after_step` is called by that thread, with no lock held, after a step's calls of all sinks, so
  // that who reads many streams can be woken once; it must return quickly and not throw. Throws
  // kInvalidArgument that names the field when the limits do not fit the engine.
  Executor(Engine& engine, Sampler& sampler, const ExecutorConfig& config,
           std::function<void()> after_step = {});
  ~Executor();  // shutdown()

  // Checks the request and queues it. Returns its id, from 1. Throws kInvalidArgument (names field,
  // value and limit), kResourceExhausted (the queue is full) or kUnavailable (shut down); `sink` is
  // then never called. Its first calls may come before submit() returns. `request.output`, `stream`
  // and the chunk sizes are not used here.
  std::uint64_t submit(const Request& request, std::shared_ptr<ColumnSink> sink);
  void cancel(std::uint64_t id);  // unknown or finished ids are ignored
  void wake();
  RuntimeStats stats() const;
  // Cancels everything, joins the thread; idempotent. Sinks have got on_finish when it returns.
  void shutdown();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace higgs_rt
