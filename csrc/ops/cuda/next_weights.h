// Which weights come next (Ops::read_ahead), and how much of them a kernel asks for.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "ops/cuda/kernels/read_ahead.h"

namespace higgs_rt {

// Bytes of the weights that come next which a kernel of each kind brings into the L2 cache.
struct ReadAheadBytes {
  // Own kernels, of few rows: the beginning, in requests of `piece` bytes, `tiles` tiles before
  // the end. Attention, which reads little, comes after attention_input.
  std::int64_t attention_input = 0, linear = 0, ffn_input = 0;
  std::uint32_t piece = 4096;
  int tiles = 2;
  // The kernels around cuBLASLt's: the beginning of every row.
  std::int64_t small = 0;
};

class NextWeights {
 public:
  ReadAheadBytes& settings() { return settings_; }
  // `beside`, which may be empty, is read in step with `weight`.
  void add(const TensorView& weight, const TensorView& beside);
  // The beginnings of what was added since the last call, `bytes` in all and in order.
  ReadAhead take(std::int64_t bytes);
  // The same of every row, `bytes` in all.
  ReadAhead take_rows(std::int64_t bytes);
  ReadAhead rows_of(const TensorView& weight, std::int64_t bytes) const;

 private:
  struct Group {
    TensorView weight, beside;
  };
  ReadAheadBytes settings_;
  std::vector<Group> groups_;
};

}  // namespace higgs_rt
