// An engine without arithmetic whose logits are a hash of everything it finds in its paged cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/check.h"
#include "engine/engine.h"
#include "executor/lazy_device.h"

namespace higgs_rt::testing {

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2));
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// What a position holds, as one number: its kind and its content.
std::uint64_t hash_text(std::int32_t id);
std::uint64_t hash_column(const std::int32_t* column, std::int32_t num_codebooks);
std::uint64_t hash_table_row(const float* row, std::int32_t hidden_size);
// The same position as a decode row, to an engine with separate_decode.
std::uint64_t hash_decoded(std::uint64_t content);
// Logits [num_codebooks, codebook_vocab] for the fold of all positions. EOS is rare, so streams
// last.
void hash_logits(std::uint64_t history, const EngineSpec& spec, float* logits);

EngineSpec small_spec(KvLayout kv);

// Stores each row's hash and position in its slot and folds the slots of the whole block table for
// every row whose logits are wanted, so an error in slots, block tables, positions, order,
// preemption or feedback changes the columns. Also checks the shape of every batch (see StepBatch)
// and throws kInternal when it is broken. With spec.separate_decode a row of a decode step has
// another hash than in a step of prompts.
//
// An asynchronous one (spec.asynchronous) leaves its work in `queue`.
class FakeEngine : public Engine {
 public:
  explicit FakeEngine(const EngineSpec& spec);
  const EngineSpec& spec() const override { return spec_; }
  Device& device() override { return *device_; }
  void forward(const StepBatch& batch, StepOutput& output) override;
  void attach(StepTail tail) override;

  // Called first in forward(); may throw.
  std::function<void(const StepBatch&)> before_step;
  // Text id that makes forward() throw an Error; the cache is unchanged then.
  std::int32_t poison = -1;
  std::int64_t steps = 0;
  std::int32_t most_rows = 0;
  std::vector<std::string> violations;  // of StepBatch's promises
  bool runs_tail = true;
  LazyQueue queue;

 private:
  struct Cell {
    std::uint64_t content = 0;
    std::int32_t position = -1;
  };
  void compute(const StepBatch& batch, const std::int32_t* last_columns);
  void verify(const StepBatch& batch) const;
  void verify_range(const StepBatch& batch, const std::vector<std::int32_t>& offset,
                    std::int32_t begin, std::int32_t end) const;
  void verify_blocks(const StepBatch& batch) const;
  void verify_decode(const StepBatch& batch) const;
  std::int32_t slot_of(const StepBatch& batch, std::int32_t s, std::int32_t position) const;
  std::uint64_t content(const StepBatch& batch, const std::int32_t* last_columns,
                        std::int32_t row) const;

  EngineSpec spec_;
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::vector<Cell> cells_;    // [slots]
  std::vector<float> logits_;  // [max_rows, codebooks, codebook vocabulary]
  StepTail tail_;
};

}  // namespace higgs_rt::testing
