// What the files of the Python module share. One file per class; no logic lives here.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace higgs_rt::bindings {

namespace py = pybind11;

void bind_errors(py::module_& module);
void bind_sampling(py::module_& module);
void bind_request(py::module_& module);
void bind_stream(py::module_& module);
void bind_runtime(py::module_& module);
void bind_probe(py::module_& module);
void bind_delay(py::module_& module);

// Row-major copy of an integer array with `rank` axes. Throws InvalidRequestError that names
// `where`, the shape and the dtype; never converts floating-point values to integers.
std::vector<std::int32_t> to_int32(const py::array& array, py::ssize_t rank, const char* where);
// Row-major copy of a floating-point array with `rank` axes.
std::vector<float> to_float32(const py::array& array, py::ssize_t rank, const char* where);

// Array that takes the values over without a copy.
template <class T>
py::array_t<T> to_array(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  const T* data = owned->data();
  py::capsule owner(owned.release(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(std::move(shape), data, owner);
}

}  // namespace higgs_rt::bindings
