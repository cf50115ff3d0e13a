// What an engine is to the executor: limits and one step.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "batch/step_batch.h"
#include "core/device.h"
#include "kv/kv_layout.h"

namespace higgs_rt {

struct EngineSpec {
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;  // codes + BOS + EOS; BOS = codebook_vocab - 2, EOS = - 1
  std::int32_t text_vocab = 0;
  std::int32_t hidden_size = 0;
  std::int32_t max_rows = 0;       // rows of one step
  std::int32_t max_sequences = 0;  // sequences of one step
  std::int32_t max_positions = 0;  // positions of one sequence
  // Of a prompt-table row, either sign. Beyond it an engine that converts the rows would get an
  // infinite number, and then no number at all in the sequence's cache.
  float largest_table_value = std::numeric_limits<float>::max();
  KvLayout kv;
  // forward() returns before the step has run. The executor then builds the next step before it has
  // seen the columns of this one, and expects the engine to run its tail (below).
  bool asynchronous = false;
  // Blocks may be in the tables of several sequences at a time, so prompts can share them. Such a
  // block is only read. Not so where a block is a sequence's whole cache.
  bool shared_blocks = false;
  // A row rounds differently as a row of a prompt and as a decode row. A step then holds rows of
  // one kind only (StepBatch::decode), and a position is computed as the same kind every time, also
  // after preemption: the prompt as prompt rows, columns one by one as decode rows. So a request
  // gives the same columns whatever else runs, as far as decode rows of any number share their bits
  // (docs/gpu.md says which do), and a step of prompt rows gives no logits.
  bool separate_decode = false;
  // Names of the adapters that a sequence may have, by their index (StepBatch::adapter).
  std::vector<std::string> adapters = {};
};

// The sampler's device work of a step, for an engine that enqueues it right behind the logits, so
// that a whole step may be one graph: from the last columns to the next ones.
struct StepTail {
  // What StepOutput::last_columns will be, and for how many sampler rows.
  const std::int32_t* last_columns = nullptr;
  std::int32_t num_rows = 0;
  // Enqueues the work for logits [count, num_codebooks, codebook_vocab] and sampler rows [count]
  // i32 (StepBatch::sampler_rows; -1: padding, no row), both in device memory. May be called while
  // a graph is recorded (Device::capture), and is then not called for the steps that launch it.
  std::function<void(const float* logits, const std::int32_t* rows, std::int32_t count)> enqueue;
};

// Seconds that a device worked on steps.
struct DeviceSeconds {
  double all = 0;
  double graphs = 0;  // of it, on steps that were launched as one graph
};

// Owns the KV storage; the executor owns the accounting of blocks. One thread drives an engine.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineSpec& spec() const = 0;
  virtual Device& device() = 0;
  // Enqueues one step and returns. Reads `batch` before it returns. Throws Error when the batch
  // exceeds the spec; the KV cache is then unchanged, and the tail has not been run. Any other
  // exception: the step has failed, and must not be run again.
  virtual void forward(const StepBatch& batch, StepOutput& output) = 0;
  // From now on every step ends with the tail, and forward() sets StepOutput::sampled. An engine
  // may prepare its graphs here, so this can take seconds. An empty tail ends that; what it
  // referred to may then go. Waits for steps in flight. Without an override tails are not run.
  virtual void attach(StepTail tail) { static_cast<void>(tail); }
  // No step is due: the caller is about to wait for requests. A hint, see Ops::set_busy.
  virtual void rest() {}
  // Of the steps since the last call, which may be estimated from the last ones that were timed; 0
  // where that is not measured. Does not wait.
  virtual DeviceSeconds device_seconds() { return {}; }
};

}  // namespace higgs_rt
