// Sampling of all codebooks, delay pattern and end of stream, per request row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/device.h"
#include "higgs_rt/types.h"

namespace higgs_rt {

struct SamplerSpec {
  std::int32_t max_rows = 0;
  std::int32_t num_codebooks = 0;
  std::int32_t codebook_vocab = 0;  // codes + BOS + EOS
};

// What the host learns about a row after a step.
struct SampledRow {
  bool finished = false;  // the stream ended with the column just written; do not feed it back
  // The logits of a sampled codebook held a NaN or nothing above -inf: finished, and the column
  // (all EOS) means nothing.
  bool failed = false;
};

// Rows are slots for requests. Everything that shapes a row's columns (parameters, seed, step
// counter, RAS window, delay state) belongs to the row, so a request gives the same columns alone,
// in any row, in any batch and after preemption (its row stays open meanwhile).
class Sampler {
 public:
  virtual ~Sampler() = default;

  // Starts a request in `row` with the synthetic all-BOS column (column 0) already pushed: it is
  // the row's last column, and the first advance() writes column 1. `history` holds up to
  // ras_window columns [n, num_codebooks] that precede column 0 (the tail of the prompt's reference
  // columns, specification 7); it may be empty. Throws kInvalidArgument on bad parameters.
  virtual void open_row(std::int32_t row, const SamplingParams& params,
                        std::span<const std::int32_t> history) = 0;

  // One step for the rows listed: logits [rows.size(), num_codebooks, codebook_vocab] fp32 in
  // device memory, in the order of `rows`. Enqueues and returns. At most kMaxSteps steps may wait
  // to be fetched; one more is refused with kInvalidArgument.
  virtual void advance(const float* logits, std::span<const std::int32_t> rows) = 0;

  // Columns and flags written by the oldest advance() that has not been fetched, in its order:
  // columns [n, num_codebooks]. Waits for that step only, on a device that works asynchronously.
  // Nothing has been advanced: n = 0. Arguments of another size are refused and fetch nothing.
  virtual void fetch(std::span<std::int32_t> columns, std::span<SampledRow> sampled) = 0;

  // The two halves of advance(), for an engine that runs the first inside its own step (engine.h,
  // StepTail): the rows of enqueue() and deliver() must then be the same.
  //
  // The device work: `rows` [count] is in device memory like the logits; -1 is no row, whose logits
  // are not looked at. The rows are not checked. Nothing depends on the step but the contents of
  // the two arrays, so that the call may be recorded in a graph (Device::capture).
  virtual void enqueue(const float* logits, const std::int32_t* rows, std::int32_t count) = 0;
  // Makes the step that enqueue() was last called for, or a graph with it launched for, the next
  // one to be fetched: the first rows.size() of its rows. Enqueues and returns.
  virtual void deliver(std::span<const std::int32_t> rows) = 0;

  static constexpr std::size_t kMaxSteps = 2;

  // Last column of every row, [max_rows, num_codebooks] int32 in device memory, stable address.
  virtual const std::int32_t* last_columns() const = 0;
};

// Throws kInvalidArgument that names the field, the value and the limit.
void validate(const SamplingParams& params, std::int32_t codebook_vocab);

std::unique_ptr<Sampler> make_cpu_sampler(const SamplerSpec& spec);
// Throws kUnsupported when this build has no CUDA.
std::unique_ptr<Sampler> make_cuda_sampler(const SamplerSpec& spec, Device& device);
// By the kind of device.
std::unique_ptr<Sampler> make_sampler(const SamplerSpec& spec, Device& device);

}  // namespace higgs_rt
