// What a decoder plan computes from its bindings (docs/tensorrt.md), over the CPU's operations.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "model/config.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace higgs_rt::testing {

// The addresses and shapes of one run, by binding name.
using Bound = std::map<std::string, TensorView>;

// fp32 throughout. Follows the bindings literally: rows are gathered to the grid of slots and
// positions by row_index, padding included, and back by text_place and audio_place. Throws
// kInternal when the caller breaks a rule of the bindings.
class FakeNetwork {
 public:
  // `weights` may be empty: they are then among the bound tensors. `capacity`: positions of a slot.
  FakeNetwork(const ModelConfig& config, ModelWeights weights, std::int32_t capacity, Ops& ops);
  void run(const Bound& bound);

 private:
  void check_rules(const Bound& bound) const;
  void embed(const Bound& bound, const TensorView& hidden);
  void attention(const Bound& bound, std::size_t layer, const TensorView& hidden);
  void store(const Bound& bound, const TensorView& update, const TensorView& cache) const;
  Tensor by_position(const Bound& bound, const TensorView& cache) const;
  void feed_forward(const PathWeights& path, const TensorView& hidden);
  Tensor floats(std::int64_t rows, std::int64_t width);

  const ModelConfig config_;
  ModelWeights weights_;
  const bool weights_are_bound_;
  const std::int32_t capacity_;
  Ops& ops_;
  Tensor rope_;
};

// The tensors of `weights` by the original layout's names.
std::map<std::string, TensorView*> weight_names(ModelWeights& weights);

}  // namespace higgs_rt::testing
