// A LoRA adapter in peft's format (docs/training.md): merged into the weights as they are loaded,
// or kept apart from them (adapter_set.h).
#pragma once

#include <map>
#include <set>
#include <string>

#include "core/tensor.h"
#include "core/thread_pool.h"
#include "io/checkpoint.h"

namespace higgs_rt {

// adapter_config.json and adapter_model.safetensors. Tensors of the model are called by their
// transformers names, "model.layers.0.self_attn.q_proj.weight". A weight gets, in float64 and
// rounded once to fp32 and then to its own element type,
//   weight[i, j] + scale * sum over r of B[i, r] A[r, j]  (r ascending),
// scale = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora; a tensor that was trained in
// full replaces the model's. `higgs-rt train merge` computes the same bits.
class Adapter {
 public:
  // Throws kNotFound, or kInvalidArgument that names the file and field: another kind of adapter,
  // an option that would change the sum above, a tensor that is neither of the two.
  explicit Adapter(const std::string& directory);

  const std::string& directory() const { return tensors_.directory(); }
  bool touches(const std::string& name) const;
  // The merged tensor, as `base` in shape and element type, into memory of the host. Throws
  // kInvalidArgument for an adapter of another shape.
  void merge(const std::string& name, const TensorView& base, void* merged);
  // lora_A [rank, inputs] and lora_B [outputs, rank] of a weight [outputs, inputs] that touches()
  // says yes to, fp32 or bf16, valid while the adapter lives. Throws as merge().
  struct Factors {
    TensorView a, b;
  };
  Factors factors(const std::string& name, std::int64_t outputs, std::int64_t inputs);
  std::int32_t rank() const { return rank_; }
  double scale() const { return scale_; }
  // Throws kInvalidArgument that names a tensor which was trained in full: it cannot be kept apart.
  void check_factors_only() const;
  // A tensor that the runtime does not use.
  void skip(const std::string& name) { used_.insert(name); }
  // Throws kInvalidArgument that names a tensor which no weight took.
  void check_all_used() const;

 private:
  void merge_product(const std::string& module, const TensorView& base, void* merged);

  Checkpoint tensors_;
  double scale_ = 0;
  std::int32_t rank_ = 0;
  std::set<std::string> adapted_;            // names of weights with A and B
  std::map<std::string, std::string> full_;  // name of a weight to its name in the file
  std::set<std::string> used_;
  ThreadPool pool_{0};
};

}  // namespace higgs_rt
