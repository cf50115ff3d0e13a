// Probe.
#include "api/probe.h"

#include <pybind11/stl.h>

#include "api/config_check.h"
#include "bindings/bindings.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace higgs_rt::bindings {
namespace {

py::array logits(Probe& probe, const std::vector<PromptSegment>& prompt, const py::array& columns,
                 std::int32_t chunk_rows, const std::string& adapter) {
  const std::vector<std::int32_t> values = to_int32(columns, 2, "columns");
  std::vector<float> out =
      without_gil([&] { return probe.logits(prompt, values, chunk_rows, adapter); });
  const ModelInfo& info = probe.info();
  return to_array(std::move(out), {columns.shape(0), info.num_codebooks, info.codebook_vocab});
}

}  // namespace

void bind_probe(py::module_& module) {
  py::class_<Probe>(module, "Probe")
      .def(py::init([](const RuntimeConfig& config) {
             validate(config);
             return load_model([&] { return std::make_unique<Probe>(config); });
           }),
           py::arg("config"))
      .def("logits", &logits, py::arg("prompt"), py::arg("columns"), py::arg("chunk_rows") = 0,
           py::arg("adapter") = "");
}

}  // namespace higgs_rt::bindings
