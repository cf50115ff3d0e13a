// What the tests of the operations share: devices, random tensors and bitwise comparison.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/device.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "higgs_rt/error.h"
#include "ops/ops.h"

namespace higgs_rt::testing {

// Ops for one instruction set ("" = the best) and a number of threads.
struct CpuBackend {
  explicit CpuBackend(int threads = 2, const char* isa = "")
      : device(make_cpu_device()), pool(threads) {
    setenv("HIGGS_RT_CPU_ISA", isa, 1);
    ops = make_cpu_ops(*device, pool);
    unsetenv("HIGGS_RT_CPU_ISA");
  }
  Ops* operator->() { return ops.get(); }

  std::unique_ptr<Device> device;
  ThreadPool pool;
  std::unique_ptr<Ops> ops;
};

// Kernel tables that this machine has.
inline std::vector<const char*> isas() {
  std::vector<const char*> found;
  for (const char* isa : {"generic", "avx2", "avx512", "reference"}) {
    try {
      CpuBackend backend(1, isa);
      found.push_back(isa);
    } catch (const Error&) {
    }
  }
  return found;
}

inline Device& cpu() {
  static const std::unique_ptr<Device> device = make_cpu_device();
  return *device;
}

inline std::mt19937& generator() {
  static std::mt19937 engine(20261120);
  return engine;
}

inline Tensor zeros(Shape shape, DType dtype = DType::kF32) {
  Tensor tensor(cpu(), dtype, std::move(shape));
  std::memset(tensor.view().data, 0, tensor.view().bytes());
  return tensor;
}

// Normal fp32 numbers, or the same rounded to bf16.
inline Tensor random_tensor(Shape shape, DType dtype = DType::kF32, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  Tensor tensor(cpu(), dtype, std::move(shape));
  for (std::int64_t i = 0; i < tensor.view().size(); ++i) {
    const float value = normal(generator());
    if (dtype == DType::kF32) {
      tensor.as<float>()[i] = value;
    } else {
      tensor.as<BF16>()[i] = to_bf16(value);
    }
  }
  return tensor;
}

inline Tensor integers(const std::vector<std::int32_t>& values, Shape shape) {
  Tensor tensor(cpu(), DType::kI32, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.as<std::int32_t>());
  return tensor;
}

inline Tensor copy_of(const TensorView& view) {
  Tensor tensor(cpu(), view.dtype, view.shape);
  std::memcpy(tensor.view().data, view.data, view.bytes());
  return tensor;
}

inline double element(const TensorView& view, std::int64_t i) {
  return view.dtype == DType::kF32 ? view.as<float>()[i] : to_float(view.as<BF16>()[i]);
}

inline bool same_bits(const TensorView& a, const TensorView& b) {
  return a.shape == b.shape && std::memcmp(a.data, b.data, a.bytes()) == 0;
}

// Largest |actual - expected|; infinity when any element is not a number.
inline double max_error(const TensorView& actual, const std::vector<double>& expected) {
  double worst = 0.0;
  for (std::int64_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual.as<float>()[i] - expected[static_cast<std::size_t>(i)]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

inline int uniform(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(generator());
}

}  // namespace higgs_rt::testing
