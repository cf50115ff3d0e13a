// Entry of the Python module higgs_rt._higgs_rt.
#include "bindings/bindings.h"

PYBIND11_MODULE(_higgs_rt, module) {
  using namespace higgs_rt::bindings;  // NOLINT
  module.doc() = "Native module of higgs_rt; see _higgs_rt.pyi.";
  // Loads numpy's tables now: pybind11 releases the GIL for it, which gil.h explains.
  static_cast<void>(py::dtype::of<float>());
  bind_errors(module);
  bind_sampling(module);
  bind_request(module);
  bind_stream(module);
  bind_runtime(module);
  bind_probe(module);
  bind_delay(module);
}
