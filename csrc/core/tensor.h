// Contiguous row-major tensors: TensorView refers to memory, Tensor owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"

namespace higgs_rt {

using Shape = std::vector<std::int64_t>;

std::int64_t num_elements(const Shape& shape);
std::string to_string(const Shape& shape);

// A view never owns; whoever made it keeps the memory alive. Views of weights are read-only by
// agreement (they may point into a read-only mapping).
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  std::int64_t size() const { return num_elements(shape); }
  std::int64_t dim(std::size_t axis) const { return shape.at(axis); }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype); }
  explicit operator bool() const { return data != nullptr; }

  // Typed pointer. Throws when the element type differs.
  template <class T>
  T* as() const;
  // The first `rows` rows (axis 0).
  TensorView first(std::int64_t rows) const { return slice(0, rows); }
  // Rows [begin, begin + count) of axis 0.
  TensorView slice(std::int64_t begin, std::int64_t count) const;
};

class Tensor {
 public:
  Tensor() = default;
  // Memory of `device`, uninitialised. The device must outlive the tensor.
  Tensor(Device& device, DType dtype, Shape shape);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a Tensor is a view that owns
  template <class T>
  T* as() const {
    return view_.as<T>();
  }

 private:
  TensorView view_;
  std::shared_ptr<void> memory_;
};

}  // namespace higgs_rt
