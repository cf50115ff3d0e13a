// Checked copies of numpy arrays.
#include <limits>
#include <string>

#include "bindings/bindings.h"
#include "higgs_rt/error.h"

namespace higgs_rt::bindings {
namespace {

void check(bool ok, const char* where, const std::string& message) {
  if (!ok) throw Error(ErrorCode::kInvalidArgument, "[" + std::string(where) + "] " + message);
}

std::string shape_of(const py::array& array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

void check_array(const py::array& array, py::ssize_t rank, const char* kinds, const char* expected,
                 const char* where) {
  check(std::string(kinds).find(array.dtype().kind()) != std::string::npos, where,
        std::string("expected ") + expected + ", got dtype " +
            py::str(array.dtype()).cast<std::string>());
  check(array.ndim() == rank, where,
        "expected " + std::to_string(rank) + " axes, got shape " + shape_of(array));
}

}  // namespace

std::vector<std::int32_t> to_int32(const py::array& array, py::ssize_t rank, const char* where) {
  check_array(array, rank, "iu", "integers", where);
  const auto wide = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>(array);
  std::vector<std::int32_t> out(static_cast<std::size_t>(wide.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t value = wide.data()[i];
    check(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), where,
          "expected ids in [0, 2^31), got " + std::to_string(value));
    out[i] = static_cast<std::int32_t>(value);
  }
  return out;
}

std::vector<float> to_float32(const py::array& array, py::ssize_t rank, const char* where) {
  check_array(array, rank, "f", "floating-point numbers", where);
  const auto values = py::array_t<float, py::array::c_style | py::array::forcecast>(array);
  return {values.data(), values.data() + values.size()};
}

}  // namespace higgs_rt::bindings
