#include "core/tensor.h"

#include <algorithm>

#include "core/check.h"

namespace higgs_rt {

Shape::Shape(std::initializer_list<std::int64_t> extents) {
  for (const std::int64_t extent : extents) push_back(extent);
}

void Shape::push_back(std::int64_t extent) {
  check(rank_ < kMaxRank, "tensor", "expected at most ", kMaxRank, " axes, got more");
  extents_[rank_++] = extent;
}

std::int64_t Shape::at(std::size_t axis) const {
  check_internal(axis < rank_, "tensor", "expected an axis below ", rank_, ", got ", axis);
  return extents_[axis];
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::int64_t num_elements(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

namespace {

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<BF16>() {
  return DType::kBF16;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::kU8;
}

}  // namespace

template <class T>
T* TensorView::as() const {
  check_internal(dtype == dtype_of<T>(), "tensor", "expected element type ", name_of(dtype_of<T>()),
                 ", got ", name_of(dtype));
  return static_cast<T*>(data);
}

template float* TensorView::as<float>() const;
template BF16* TensorView::as<BF16>() const;
template std::int32_t* TensorView::as<std::int32_t>() const;
template std::uint8_t* TensorView::as<std::uint8_t>() const;

TensorView TensorView::slice(std::int64_t begin, std::int64_t count) const {
  if (shape.empty() || begin < 0 || count < 0 || begin + count > shape[0]) {
    fail(ErrorCode::kInternal, "tensor", "expected a range within ", to_string(shape), ", got ",
         begin, " + ", count);
  }
  const std::int64_t row = shape[0] == 0 ? 0 : size() / shape[0];
  TensorView part{static_cast<char*>(data) + static_cast<std::size_t>(begin * row) * size_of(dtype),
                  dtype, shape};
  part.shape[0] = count;
  return part;
}

Tensor::Tensor(Device& device, DType dtype, Shape shape) {
  view_ = TensorView{nullptr, dtype, std::move(shape)};
  memory_ = device.allocate(view_.bytes());
  view_.data = memory_.get();
}

}  // namespace higgs_rt
