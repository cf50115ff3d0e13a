// Takes tensors out of a checkpoint by their names, brings them to the device, and remembers what
// was asked for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/config.h"
#include "model/weights.h"

namespace higgs_rt {

// A tensor that is missing is noted for finish(); one of another shape or type is an Error at once.
class WeightLoader {
 public:
  // All must outlive the loader; `adapter` may be null. Owned tensors go into `weights`, which also
  // gets the number of parameters and their type.
  WeightLoader(const ModelConfig& config, const Checkpoint& checkpoint, Device& device,
               ModelWeights& weights, Adapter* adapter);

  TensorView backbone(const std::string& name, const Shape& shape);
  TensorView linear(const std::string& name, std::int64_t outputs, std::int64_t inputs);

  struct Part {
    std::string name;
    std::int64_t outputs;
    TensorView* view;
  };
  // Linear weights that share their input: away from the CPU they lie one after another.
  void linear_group(std::initializer_list<Part> parts, std::int64_t inputs);

  // Training checkpoints may hold the embedding in two halves.
  TensorView embedding(const std::string& name, const Shape& shape);

  // The heads stand under either layout's name; both may be there.
  TensorView head(const std::string& name, const Shape& shape);
  // A head that is not used: checked and counted, but not brought to the device.
  void optional_head(const std::string& name, const Shape& shape);

  // Names are checked only now, so that a message can list what is missing together.
  void finish() const;

 private:
  TensorView take(const std::vector<std::string>& names, const Shape& shape);
  TensorView adapted(const std::string& stored_name, const TensorView& stored);
  std::string transformers_name(const std::string& stored) const;
  TensorView join_or_take(const std::vector<std::string>& names, const std::string& half,
                          const Shape& shape, std::optional<DType> dtype);
  TensorView join(const std::string& frozen, const std::string& trainable, const Shape& shape,
                  std::optional<DType> dtype);
  TensorView place(const TensorView& stored, std::optional<DType> dtype = std::nullopt);
  DType placed_dtype(const TensorView& stored, std::optional<DType> dtype) const;
  void upload(const TensorView& from, const TensorView& to);
  void count(const TensorView& tensor);

  std::string prefix_;
  const Checkpoint& checkpoint_;
  Device& device_;
  ModelWeights& weights_;
  Adapter* adapter_;
  std::vector<char> scratch_;
  std::set<std::string> used_;
  std::vector<std::string> missing_;
};

}  // namespace higgs_rt
