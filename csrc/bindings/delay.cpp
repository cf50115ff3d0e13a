// The delay pattern.
#include "api/probe.h"
#include "bindings/bindings.h"

namespace higgs_rt::bindings {

void bind_delay(py::module_& module) {
  module.def(
      "apply_delay",
      [](const py::array& codes, std::int32_t codebook_size) {
        const auto books = static_cast<std::int32_t>(codes.ndim() > 0 ? codes.shape(0) : 0);
        const std::vector<std::int32_t> values = to_int32(codes, 2, "codes");
        std::vector<std::int32_t> columns = delayed_columns(values, books, codebook_size);
        const auto rows = static_cast<py::ssize_t>(columns.size()) / books;
        return to_array(std::move(columns), {rows, books});
      },
      py::arg("codes"), py::arg("codebook_size"));
}

}  // namespace higgs_rt::bindings
