// Contiguous row-major tensors: TensorView refers to memory, Tensor owns it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "core/device.h"
#include "core/dtype.h"

namespace higgs_rt {

// Extents of up to kMaxRank axes, kept in place: views are made and copied some hundred times in a
// decode step, and must not allocate.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);  // NOLINT: written as {rows, columns}

  // Throws kInvalidArgument beyond kMaxRank axes.
  void push_back(std::int64_t extent);
  std::size_t size() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  std::int64_t* begin() { return extents_.data(); }
  std::int64_t* end() { return extents_.data() + rank_; }
  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }
  std::int64_t& operator[](std::size_t axis) { return extents_[axis]; }
  std::int64_t operator[](std::size_t axis) const { return extents_[axis]; }
  std::int64_t at(std::size_t axis) const;  // throws kInternal beyond the last axis
  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  std::size_t rank_ = 0;
};

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
