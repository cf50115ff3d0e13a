#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "io/json_object.h"

namespace higgs_rt {

namespace {

const std::string kPrefix = "base_model.model.";
const std::string kLoraA = ".lora_A.weight";
const std::string kLoraB = ".lora_B.weight";
const std::string kWeight = ".weight";
const std::string kBegin = "init_lora_weights";
constexpr std::int64_t kRowsOfTask = 8;

std::string config_path(const std::string& directory) { return directory + "/adapter_config.json"; }

// Present, and neither false, empty nor "none".
bool is_set(const JsonObject& config, const std::string& name) {
  if (!config.has(name)) return false;
  const Json& value = *config.value().find(name);
  switch (value.type()) {
    case Json::Type::kBool:
      return value.bool_value();
    case Json::Type::kArray:
    case Json::Type::kObject:
      return !value.items().empty();
    case Json::Type::kString:
      return !value.string_value().empty() && value.string_value() != "none";
    default:
      return true;
  }
}

// Options of peft under which a weight would not become W + scale B A.
void refuse_others(const JsonObject& config) {
  for (const char* name :
       {"bias", "fan_in_fan_out", "use_dora", "use_qalora", "use_bdlora", "lora_bias",
        "rank_pattern", "alpha_pattern", "layer_replication", "target_parameters",
        "trainable_token_indices", "megatron_config", "alora_invocation_tokens"}) {
    if (is_set(config, name)) config.refuse(name, "a plain LoRA adapter without it");
  }
  // These ways to begin change the base weights, which an adapter that is not converted goes with.
  if (!config.has(kBegin)) return;
  const Json& begin = *config.value().find(kBegin);
  if (begin.type() != Json::Type::kString) return;
  for (const char* name : {"pissa", "olora", "corda", "loftq"}) {
    if (begin.string_value().starts_with(name)) {
      config.refuse(kBegin, "one that leaves the base weights as they are");
    }
  }
}

std::vector<double> widened(const TensorView& tensor) {
  std::vector<double> wide(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype == DType::kF32) {
    std::copy_n(tensor.as<float>(), wide.size(), wide.begin());
  } else {
    std::transform(tensor.as<BF16>(), tensor.as<BF16>() + wide.size(), wide.begin(),
                   [](BF16 value) { return double{to_float(value)}; });
  }
  return wide;
}

void store(double value, float& to) { to = static_cast<float>(value); }
void store(double value, BF16& to) { to = to_bf16(static_cast<float>(value)); }
double load(float value) { return value; }
double load(BF16 value) { return to_float(value); }

struct Product {
  std::vector<double> a, b;  // [rank, inputs], [outputs, rank]
  std::int64_t rank, inputs;
  double scale;
};

// One row of weight + scale B A; `sum` is scratch of `inputs` numbers.
template <class T>
void merge_row(const Product& factors, std::int64_t row, const T* base, T* merged,
               std::vector<double>& sum) {
  std::fill(sum.begin(), sum.end(), 0.0);
  for (std::int64_t r = 0; r < factors.rank; ++r) {
    const double weight = factors.b[static_cast<std::size_t>(row * factors.rank + r)];
    const double* a = factors.a.data() + r * factors.inputs;
    for (std::int64_t j = 0; j < factors.inputs; ++j) {
      sum[static_cast<std::size_t>(j)] += weight * a[j];
    }
  }
  for (std::int64_t j = 0; j < factors.inputs; ++j) {
    const double delta = factors.scale * sum[static_cast<std::size_t>(j)];
    store(load(base[j]) + delta, merged[j]);
  }
}

template <class T>
void merge_rows(ThreadPool& pool, const Product& factors, const TensorView& base, void* merged) {
  const T* from = base.as<T>();
  T* to = static_cast<T*>(merged);
  pool.parallel_for(base.dim(0), kRowsOfTask, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sum(static_cast<std::size_t>(factors.inputs));
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row * factors.inputs;
      merge_row(factors, row, from + at, to + at, sum);
    }
  });
}

}  // namespace

Adapter::Adapter(const std::string& directory) : tensors_(directory) {
  const JsonObject config = JsonObject::read(config_path(directory));
  config.require_text("peft_type", "LORA");
  refuse_others(config);
  rank_ = config.positive("r");
  const double alpha = config.number("lora_alpha");
  const auto rank = static_cast<double>(rank_);
  scale_ = alpha / (config.boolean("use_rslora", false) ? std::sqrt(rank) : rank);
  for (const std::string& stored : tensors_.names()) {
    const std::string where = tensors_.place(stored);
    check(stored.starts_with(kPrefix), where.c_str(), "expected a name that begins with ", kPrefix,
          ", got ", stored);
    const std::string name = stored.substr(kPrefix.size());
    if (name.ends_with(kLoraA)) {
      adapted_.insert(name.substr(0, name.size() - kLoraA.size()) + kWeight);
    } else if (!name.ends_with(kLoraB)) {
      check(name.ends_with(kWeight) && name.find(".lora_") == std::string::npos, where.c_str(),
            "expected lora_A, lora_B or a weight that was trained in full, got ", name);
      full_[name] = stored;
    }
  }
  for (const std::string& stored : tensors_.names()) {
    if (!stored.ends_with(kLoraB)) continue;
    const std::string module = stored.substr(0, stored.size() - kLoraB.size());
    check(tensors_.contains(module + kLoraA), tensors_.place(stored).c_str(),
          "expected lora_A beside it, got none");
  }
}

bool Adapter::touches(const std::string& name) const {
  return adapted_.count(name) != 0 || full_.count(name) != 0;
}

void Adapter::merge(const std::string& name, const TensorView& base, void* merged) {
  used_.insert(name);
  if (adapted_.count(name) != 0) {
    merge_product(name.substr(0, name.size() - kWeight.size()), base, merged);
    return;
  }
  const TensorView whole = tensors_.tensor(full_.at(name), base.shape);
  const std::vector<double> values = widened(whole);
  if (base.dtype == DType::kF32) {
    for (std::size_t i = 0; i < values.size(); ++i)
      store(values[i], static_cast<float*>(merged)[i]);
  } else {
    for (std::size_t i = 0; i < values.size(); ++i) store(values[i], static_cast<BF16*>(merged)[i]);
  }
}

void Adapter::merge_product(const std::string& module, const TensorView& base, void* merged) {
  const auto [a, b] = factors(module + kWeight, base.dim(0), base.dim(1));
  const Product product{widened(a), widened(b), rank_, base.dim(1), scale_};
  if (base.dtype == DType::kF32) {
    merge_rows<float>(pool_, product, base, merged);
  } else {
    merge_rows<BF16>(pool_, product, base, merged);
  }
}

Adapter::Factors Adapter::factors(const std::string& name, std::int64_t outputs,
                                  std::int64_t inputs) {
  used_.insert(name);
  const std::string module = kPrefix + name.substr(0, name.size() - kWeight.size());
  return {tensors_.tensor(module + kLoraA, {rank_, inputs}),
          tensors_.tensor(module + kLoraB, {outputs, rank_})};
}

void Adapter::check_factors_only() const {
  if (full_.empty()) return;
  fail(ErrorCode::kInvalidArgument, tensors_.place(full_.begin()->second).c_str(),
       "expected lora_A and lora_B alone in an adapter that requests choose, got a tensor trained "
       "in full (merge this adapter instead: adapter_dir, --adapter or `higgs-rt train merge`)");
}

void Adapter::check_all_used() const {
  const auto check_one = [&](const std::string& name) {
    check(used_.count(name) != 0, directory().c_str(),
          "expected tensors of this model only, got one for ", name);
  };
  for (const std::string& name : adapted_) check_one(name);
  for (const auto& [name, stored] : full_) check_one(name);
}

}  // namespace higgs_rt
