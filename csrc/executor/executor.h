// Batches requests in flight: schedule -> forward -> sample -> publish, on one thread of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/engine.h"
#include "higgs_rt/types.h"
#include "sampler/sampler.h"

namespace higgs_rt {

// Receives the columns of one request. The three calls come from the step thread, in order, and
// must return quickly and not throw. paused() may be asked at any time.
class ColumnSink {
 public:
  virtual ~ColumnSink() = default;
  virtual void on_started() {}
  // Columns 0 (all BOS, synthetic), 1, 2, …; [num_codebooks]. The all-EOS column is included.
  virtual void on_column(std::span<const std::int32_t> column) = 0;
  // Exactly once, and last, for every request that submit() accepted.
  virtual void on_finish(FinishReason reason, const std::string& error) = 0;
  // Back-pressure: while true, the request is left out of the batch (it keeps its blocks unless
  // they are needed). Executor::wake() must be called when it turns false.
  virtual bool paused() const { return false; }
};

struct ExecutorConfig {
  std::int32_t max_batch = 32;         // requests running at the same time (= sampler rows)
  std::int32_t max_queue = 256;        // waiting requests
  std::int32_t max_step_tokens = 256;  // rows of one step; decode rows come first
  std::int32_t max_sequence = 4096;    // prompt + generated positions of one request
};

class Executor {
 public:
  // `engine` and `sampler` must outlive the executor and are driven by its thread alone.
  Executor(Engine& engine, Sampler& sampler, const ExecutorConfig& config);
  ~Executor();  // shutdown()

  // Checks the request (field, value and limit are named) and queues it. Returns its id.
  // `request.output`, `stream` and the chunk sizes are not used here.
  std::uint64_t submit(Request request, std::shared_ptr<ColumnSink> sink);
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
