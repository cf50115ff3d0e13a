// Chunk, RequestTiming and Stream.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/notifier.h"
#include "higgs_rt/runtime.h"

namespace higgs_rt::bindings {
namespace {

// How long a waiting reader leaves Python without a chance to handle signals.
constexpr std::chrono::milliseconds kSignalPeriod{50};

// Arrays that refer to the chunk's memory and keep the chunk alive.
template <class T>
py::array view(const py::object& chunk, const std::vector<T>& values,
               std::vector<py::ssize_t> shape) {
  return py::array_t<T>(std::move(shape), values.data(), chunk);
}

// A 2-D view [rows, size / rows] or [size / cols, cols]; an empty one has no elements either way.
py::ssize_t other_axis(std::size_t size, std::int32_t axis) {
  return axis > 0 ? static_cast<py::ssize_t>(size) / axis : 0;
}

void bind_chunk(py::module_& module) {
  py::class_<Chunk>(module, "Chunk")
      .def_property_readonly("pcm",
                             [](const py::object& self) {
                               const auto& pcm = self.cast<const Chunk&>().pcm;
                               return view(self, pcm, {static_cast<py::ssize_t>(pcm.size())});
                             })
      .def_property_readonly("frames",
                             [](const py::object& self) {
                               const auto& chunk = self.cast<const Chunk&>();
                               return view(self, chunk.frames,
                                           {chunk.num_codebooks, chunk.num_frames});
                             })
      .def_property_readonly("columns",
                             [](const py::object& self) {
                               const auto& chunk = self.cast<const Chunk&>();
                               return view(self, chunk.columns,
                                           {other_axis(chunk.columns.size(), chunk.num_codebooks),
                                            chunk.num_codebooks});
                             })
      .def_readonly("last", &Chunk::last)
      .def_readonly("finish", &Chunk::finish)
      .def_readonly("error", &Chunk::error);
}

void bind_timing(py::module_& module) {
  py::class_<RequestTiming>(module, "RequestTiming")
      .def_readonly("started", &RequestTiming::started)
      .def_readonly("first_column", &RequestTiming::first_column)
      .def_readonly("first_chunk", &RequestTiming::first_chunk)
      .def_readonly("finished", &RequestTiming::finished);
}

using Clock = std::chrono::steady_clock;

std::optional<Chunk> next(Stream& stream, std::optional<double> timeout) {
  // A deadline beyond a year is none; this also keeps the clock's arithmetic in range.
  const bool limited = timeout.has_value() && *timeout < 3e7;
  if (timeout.has_value() && std::isnan(*timeout)) throw py::value_error("[timeout] got nan");
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(limited ? std::max(*timeout, 0.0) : 0.0));
  while (true) {
    std::chrono::milliseconds wait = kSignalPeriod;
    if (limited) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
      wait = std::clamp(left, std::chrono::milliseconds{0}, kSignalPeriod);
    }
    Chunk chunk;
    const Stream::Poll got = without_gil([&] { return stream.next_for(chunk, wait); });
    if (got == Stream::Poll::kChunk) return chunk;
    if (got == Stream::Poll::kEnd) return std::nullopt;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (limited && Clock::now() >= deadline) {
      PyErr_SetString(PyExc_TimeoutError, "[stream] expected a chunk within the timeout, got none");
      throw py::error_already_set();
    }
  }
}

// A Python callable that threads without the GIL may hold, call and drop.
class Callback {
 public:
  explicit Callback(py::function function)
      : function_(new py::function(std::move(function)), [](py::function* held) {
          if (Py_IsInitialized() == 0) return;  // the interpreter is gone, and the object with it
          py::gil_scoped_acquire acquire;
          delete held;
        }) {}

  // An exception cannot reach anyone from here; Python reports it (sys.unraisablehook).
  void operator()(const Chunk& chunk) const {
    py::gil_scoped_acquire acquire;
    try {
      (*function_)(py::cast(chunk, py::return_value_policy::copy));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("higgs_rt.Stream.on_chunk callback");
    }
  }

 private:
  std::shared_ptr<py::function> function_;
};

}  // namespace

void bind_stream(py::module_& module) {
  bind_chunk(module);
  bind_timing(module);
  py::class_<Notifier, std::shared_ptr<Notifier>>(module, "Notifier")
      .def(py::init<>())
      .def_property_readonly("fd", &Notifier::fd)
      .def("take", &Notifier::take);
  py::class_<Stream>(module, "Stream")
      .def("next", &next, py::arg("timeout") = std::nullopt)
      .def(
          "on_chunk",
          [](Stream& stream, py::function callback) {
            Callback held(std::move(callback));
            without_gil([&] { stream.on_chunk(std::move(held)); });
          },
          py::arg("callback"))
      .def(
          "notify",
          [](Stream& stream, std::shared_ptr<Notifier> notifier, std::int64_t token) {
            stream.on_ready([notifier = std::move(notifier), token] { notifier->notify(token); });
          },
          py::arg("notifier").none(false), py::arg("token"))
      .def("cancel", [](Stream& stream) { without_gil([&] { stream.cancel(); }); })
      .def_property_readonly("done", &Stream::done)
      .def_property_readonly("id", &Stream::id)
      .def_property_readonly("timing", &Stream::timing);
}

}  // namespace higgs_rt::bindings
