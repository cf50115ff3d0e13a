// Host-side bookkeeping that the CPU and the CUDA sampler share: which rows are open, and the
// checks of every call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sampler/row_state.h"
#include "sampler/sampler.h"

namespace higgs_rt {

class RowTable {
 public:
  // Throws kInvalidArgument for a spec outside the limits of row_state.h.
  explicit RowTable(const SamplerSpec& spec);

  const SamplerSpec& spec() const { return spec_; }

  // Checks open_row's arguments, marks the row open and returns its first state: history and the
  // all-BOS column pushed.
  RowState open(std::int32_t row, const SamplingParams& params,
                std::span<const std::int32_t> history);

  // Checks that the rows are open and listed once.
  void check_rows(std::span<const std::int32_t> rows);

  // Notes a step of `rows` rows that waits to be fetched, and returns its place in a ring of
  // Sampler::kMaxSteps. Throws kInvalidArgument when the ring is full.
  std::size_t push_step(std::size_t rows);
  // The oldest such step. No rows, and no step to pop, when there is none.
  struct Step {
    std::size_t rows = 0;
    std::size_t place = 0;
  };
  // Checks that fetch()'s arguments have room for the oldest step.
  Step oldest_step(std::size_t columns, std::size_t sampled) const;
  void pop_step();

 private:
  SamplerSpec spec_;
  std::vector<std::uint8_t> open_;    // [max_rows]
  std::vector<std::uint64_t> marks_;  // [max_rows]: the last check_rows() that listed the row
  std::uint64_t mark_ = 0;
  std::array<std::size_t, Sampler::kMaxSteps> steps_ = {};  // rows of each, a ring
  std::uint64_t pushed_ = 0, popped_ = 0;
};

}  // namespace higgs_rt
