// The GPU for tests that compare CUDA operations with the CPU's; skips the case without one.
#pragma once

#include "ops_test.h"

namespace higgs_rt::testing {

struct CudaBackend {
  CudaBackend() {
    try {
      device = make_cuda_device(0);
    } catch (const Error& error) {
      SKIP(error.what());
    }
    ops = make_cuda_ops(*device);
  }
  Ops* operator->() { return ops.get(); }

  Tensor put(const TensorView& host) const {
    Tensor tensor(*device, host.dtype, host.shape);
    device->copy_from_host(tensor.view().data, host.data, host.bytes());
    return tensor;
  }
  // Every bit set: NaN, so that what a kernel leaves out shows.
  Tensor poisoned(const Shape& shape, DType dtype) const {
    const Tensor host(cpu(), dtype, shape);
    std::memset(host.view().data, 0xFF, host.view().bytes());
    return put(host);
  }
  Tensor get(const TensorView& view) const {
    Tensor host(cpu(), view.dtype, view.shape);
    device->copy_to_host(host.view().data, view.data, view.bytes());
    return host;
  }

  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;
};

// fp32 numbers of a host tensor, exactly.
inline Tensor as_f32(const TensorView& view) {
  Tensor out(cpu(), DType::kF32, view.shape);
  for (std::int64_t i = 0; i < view.size(); ++i) {
    out.as<float>()[i] = static_cast<float>(element(view, i));
  }
  return out;
}

// ||got - expected|| / ||expected||; infinity when any number is not finite.
inline double relative_error(const TensorView& got, const TensorView& expected) {
  double wrong = 0.0, whole = 0.0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = element(got, i), reference = element(expected, i);
    if (!std::isfinite(value)) return INFINITY;
    wrong += (value - reference) * (value - reference);
    whole += reference * reference;
  }
  return whole == 0.0 ? std::sqrt(wrong) : std::sqrt(wrong / whole);
}

// Rounding of the last step: bf16 keeps 8 bits.
inline double tolerance(DType dtype) { return dtype == DType::kF32 ? 2e-6 : 3e-3; }

inline constexpr DType kActivationTypes[] = {DType::kF32, DType::kBF16};

}  // namespace higgs_rt::testing
