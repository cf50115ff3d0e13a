// Random adapters and rows for add_lora, and what it must give.
#pragma once

#include <numeric>

#include "ops_test.h"

namespace higgs_rt::testing {

struct LoraCase {
  std::int64_t rows, inputs, rank, adapters;
  std::vector<std::int64_t> outputs;  // of the weights; 0: no adapter has factors for it
};

struct LoraData {
  Tensor x, adapter, scale;
  std::vector<Tensor> a, b, outs;  // of each weight; a and b without memory where there are none

  // Rows in runs of one adapter, as those of a sequence are, some of them without.
  LoraData(const LoraCase& c, DType dtype, DType out_dtype)
      : x(random_tensor({c.rows, c.inputs}, dtype)),
        adapter(zeros({c.rows}, DType::kI32)),
        scale(random_tensor({c.adapters})) {
    std::int32_t chosen = 0;
    for (std::int64_t row = 0; row < c.rows; ++row) {
      if (uniform(0, 2) == 0) chosen = uniform(-1, static_cast<int>(c.adapters) - 1);
      adapter.as<std::int32_t>()[row] = chosen;
    }
    for (const std::int64_t outputs : c.outputs) {
      if (outputs == 0) {
        a.emplace_back(), b.emplace_back(), outs.push_back(zeros({c.rows, 1}, out_dtype));
        continue;
      }
      const float size = 1.0f / std::sqrt(static_cast<float>(c.inputs));
      a.push_back(random_tensor({c.adapters, c.rank, c.inputs}, dtype, size));
      b.push_back(random_tensor({c.adapters, outputs, c.rank}, dtype));
      outs.push_back(random_tensor({c.rows, outputs}, out_dtype));
    }
  }

  std::int32_t chosen(std::int64_t row) const { return adapter.as<std::int32_t>()[row]; }

  // outs[p] + scale b a x, in double precision.
  std::vector<double> expected(std::size_t p) const {
    const std::int64_t inputs = x.view().dim(1), width = outs[p].view().dim(1);
    const std::int64_t rank = a[p].view().dim(1);
    std::vector<double> sums;
    for (std::int64_t row = 0; row < x.view().dim(0); ++row) {
      std::vector<double> inner(static_cast<std::size_t>(rank));
      const std::int64_t index = chosen(row);
      for (std::int64_t r = 0; r < rank && index >= 0; ++r) {
        double& sum = inner[static_cast<std::size_t>(r)];
        for (std::int64_t i = 0; i < inputs; ++i) {
          sum += element(a[p], (index * rank + r) * inputs + i) * element(x, row * inputs + i);
        }
        sum *= element(scale, index);
      }
      for (std::int64_t o = 0; o < width; ++o) {
        double sum = element(outs[p], row * width + o);
        for (std::int64_t r = 0; r < rank && index >= 0; ++r) {
          sum += element(b[p], (index * width + o) * rank + r) * inner[static_cast<std::size_t>(r)];
        }
        sums.push_back(sum);
      }
    }
    return sums;
  }
};

inline std::vector<Ops::Lora> weights_of(const std::vector<Tensor>& a,
                                         const std::vector<Tensor>& b) {
  std::vector<Ops::Lora> weights;
  for (std::size_t p = 0; p < a.size(); ++p) weights.push_back({a[p], b[p]});
  return weights;
}

inline std::vector<TensorView> views_of(const std::vector<Tensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}

}  // namespace higgs_rt::testing
