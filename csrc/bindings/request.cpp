// PromptSegment and Request.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "higgs_rt/types.h"

namespace higgs_rt::bindings {
namespace {

using Kind = PromptSegment::Kind;

std::int32_t axis(const py::array& array, py::ssize_t index) {
  return static_cast<std::int32_t>(array.shape(index));
}

void bind_segment(py::module_& module) {
  py::class_<PromptSegment>(module, "PromptSegment")
      .def_static(
          "text",
          [](std::vector<std::int32_t> ids) {
            return PromptSegment{Kind::kText, std::move(ids), {}, 0};
          },
          py::arg("ids"))
      .def_static(
          "audio",
          [](const py::array& codes) {
            auto ids = to_int32(codes, 2, "codes");
            return PromptSegment{Kind::kAudio, std::move(ids), {}, axis(codes, 0)};
          },
          py::arg("codes"))
      .def_static(
          "table",
          [](const py::array& rows) {
            auto values = to_float32(rows, 2, "rows");
            return PromptSegment{Kind::kTable, {}, std::move(values), axis(rows, 1)};
          },
          py::arg("rows"));
}

}  // namespace

void bind_request(py::module_& module) {
  bind_segment(module);
  const Request defaults;
  py::class_<Request>(module, "Request")
      .def(py::init([](std::vector<PromptSegment> prompt, const SamplingParams& sampling,
                       std::int32_t max_columns, OutputKind output, bool stream,
                       std::int32_t first_chunk_frames, std::int32_t max_chunk_frames,
                       std::string adapter) {
             return Request{std::move(prompt),  sampling,         max_columns,       output, stream,
                            first_chunk_frames, max_chunk_frames, std::move(adapter)};
           }),
           py::arg("prompt"), py::arg("sampling") = defaults.sampling, py::kw_only(),
           py::arg("max_columns") = defaults.max_columns, py::arg("output") = defaults.output,
           py::arg("stream") = defaults.stream,
           py::arg("first_chunk_frames") = defaults.first_chunk_frames,
           py::arg("max_chunk_frames") = defaults.max_chunk_frames,
           py::arg("adapter") = defaults.adapter)
      .def_readwrite("max_columns", &Request::max_columns)
      .def_readwrite("output", &Request::output)
      .def_readwrite("stream", &Request::stream)
      .def_readwrite("first_chunk_frames", &Request::first_chunk_frames)
      .def_readwrite("max_chunk_frames", &Request::max_chunk_frames)
      .def_readwrite("sampling", &Request::sampling)
      .def_readwrite("adapter", &Request::adapter);
}

}  // namespace higgs_rt::bindings
