// SamplingParams and the enumerations.
#include <pybind11/native_enum.h>

#include "bindings/bindings.h"
#include "higgs_rt/types.h"

namespace higgs_rt::bindings {

void bind_sampling(py::module_& module) {
  py::native_enum<StreamRule>(module, "StreamRule", "enum.Enum")
      .value("FIRST_EOS", StreamRule::kFirstEos)
      .value("TRANSFORMERS", StreamRule::kTransformers)
      .finalize();
  py::native_enum<FinishReason>(module, "FinishReason", "enum.Enum")
      .value("NONE", FinishReason::kNone)
      .value("STOP", FinishReason::kStop)
      .value("LENGTH", FinishReason::kLength)
      .value("CANCELLED", FinishReason::kCancelled)
      .value("ERROR", FinishReason::kError)
      .finalize();
  py::native_enum<OutputKind>(module, "OutputKind", "enum.Enum")
      .value("WAVEFORM", OutputKind::kWaveform)
      .value("FRAMES", OutputKind::kFrames)
      .finalize();

  const SamplingParams defaults;
  py::class_<SamplingParams>(module, "SamplingParams")
      .def(py::init([](float temperature, std::int32_t top_k, float top_p, std::int32_t ras_window,
                       std::int32_t ras_max_repeat, std::uint64_t seed, StreamRule rule) {
             return SamplingParams{temperature,    top_k, top_p, ras_window,
                                   ras_max_repeat, seed,  rule};
           }),
           py::kw_only(), py::arg("temperature") = defaults.temperature,
           py::arg("top_k") = defaults.top_k, py::arg("top_p") = defaults.top_p,
           py::arg("ras_window") = defaults.ras_window,
           py::arg("ras_max_repeat") = defaults.ras_max_repeat, py::arg("seed") = defaults.seed,
           py::arg("rule") = defaults.rule)
      .def_readwrite("temperature", &SamplingParams::temperature)
      .def_readwrite("top_k", &SamplingParams::top_k)
      .def_readwrite("top_p", &SamplingParams::top_p)
      .def_readwrite("ras_window", &SamplingParams::ras_window)
      .def_readwrite("ras_max_repeat", &SamplingParams::ras_max_repeat)
      .def_readwrite("seed", &SamplingParams::seed)
      .def_readwrite("rule", &SamplingParams::rule);
}

}  // namespace higgs_rt::bindings
