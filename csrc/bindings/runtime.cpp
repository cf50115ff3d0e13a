// RuntimeConfig, ModelInfo, RuntimeStats and Runtime.
#include "higgs_rt/runtime.h"

#include <pybind11/stl.h>

#include <map>

#include "api/config_check.h"
#include "bindings/bindings.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace higgs_rt::bindings {
namespace {

std::vector<NamedAdapter> named(const std::map<std::string, std::string>& adapters) {
  std::vector<NamedAdapter> all;
  for (const auto& [name, directory] : adapters) all.push_back({name, directory});
  return all;
}

void bind_config(py::module_& module) {
  const RuntimeConfig d;
  py::class_<RuntimeConfig>(module, "RuntimeConfig")
      .def(
          py::init([](std::string model_dir, std::string codec_dir, std::string device,
                      std::string backend, std::string plan_dir, std::int32_t num_threads,
                      std::int32_t max_batch, std::int32_t max_queue, std::int32_t max_step_tokens,
                      std::int32_t max_sequence, std::int32_t block_tokens, std::int32_t num_blocks,
                      std::int32_t max_buffered_chunks, double gpu_memory_fraction,
                      std::int32_t max_held_steps, double prefix_cache, std::string adapter_dir,
                      const std::map<std::string, std::string>& adapters) {
            return RuntimeConfig{
                std::move(model_dir),   std::move(codec_dir), std::move(device), std::move(backend),
                std::move(plan_dir),    num_threads,          max_batch,         max_queue,
                max_step_tokens,        max_sequence,         block_tokens,      num_blocks,
                gpu_memory_fraction,    max_buffered_chunks,  max_held_steps,    prefix_cache,
                std::move(adapter_dir), named(adapters)};
          }),
          py::arg("model_dir"), py::kw_only(), py::arg("codec_dir") = d.codec_dir,
          py::arg("device") = d.device, py::arg("backend") = d.backend,
          py::arg("plan_dir") = d.plan_dir, py::arg("num_threads") = d.num_threads,
          py::arg("max_batch") = d.max_batch, py::arg("max_queue") = d.max_queue,
          py::arg("max_step_tokens") = d.max_step_tokens, py::arg("max_sequence") = d.max_sequence,
          py::arg("block_tokens") = d.block_tokens, py::arg("num_blocks") = d.num_blocks,
          py::arg("max_buffered_chunks") = d.max_buffered_chunks,
          py::arg("gpu_memory_fraction") = d.gpu_memory_fraction,
          py::arg("max_held_steps") = d.max_held_steps, py::arg("prefix_cache") = d.prefix_cache,
          py::arg("adapter_dir") = d.adapter_dir,
          py::arg("adapters") = std::map<std::string, std::string>{})
      .def_readwrite("model_dir", &RuntimeConfig::model_dir)
      .def_readwrite("codec_dir", &RuntimeConfig::codec_dir)
      .def_readwrite("device", &RuntimeConfig::device)
      .def_readwrite("backend", &RuntimeConfig::backend)
      .def_readwrite("plan_dir", &RuntimeConfig::plan_dir)
      .def_readwrite("num_threads", &RuntimeConfig::num_threads)
      .def_readwrite("max_batch", &RuntimeConfig::max_batch)
      .def_readwrite("max_queue", &RuntimeConfig::max_queue)
      .def_readwrite("max_step_tokens", &RuntimeConfig::max_step_tokens)
      .def_readwrite("max_sequence", &RuntimeConfig::max_sequence)
      .def_readwrite("block_tokens", &RuntimeConfig::block_tokens)
      .def_readwrite("num_blocks", &RuntimeConfig::num_blocks)
      .def_readwrite("gpu_memory_fraction", &RuntimeConfig::gpu_memory_fraction)
      .def_readwrite("max_buffered_chunks", &RuntimeConfig::max_buffered_chunks)
      .def_readwrite("max_held_steps", &RuntimeConfig::max_held_steps)
      .def_readwrite("prefix_cache", &RuntimeConfig::prefix_cache)
      .def_readwrite("adapter_dir", &RuntimeConfig::adapter_dir)
      .def_property(
          "adapters",
          [](const RuntimeConfig& config) {
            std::map<std::string, std::string> adapters;
            for (const auto& [name, directory] : config.adapters) adapters[name] = directory;
            return adapters;
          },
          [](RuntimeConfig& config, const std::map<std::string, std::string>& adapters) {
            config.adapters = named(adapters);
          });
}

void bind_info(py::module_& module) {
  py::class_<ModelInfo>(module, "ModelInfo")
#define HIGGS_FIELD(name) .def_readonly(#name, &ModelInfo::name)
      HIGGS_FIELD(model_dir) HIGGS_FIELD(layout) HIGGS_FIELD(weight_dtype) HIGGS_FIELD(device)
          HIGGS_FIELD(engine) HIGGS_FIELD(num_parameters) HIGGS_FIELD(num_layers)
              HIGGS_FIELD(hidden_size) HIGGS_FIELD(num_heads) HIGGS_FIELD(num_kv_heads)
                  HIGGS_FIELD(head_dim) HIGGS_FIELD(text_vocab) HIGGS_FIELD(num_codebooks)
                      HIGGS_FIELD(codebook_vocab) HIGGS_FIELD(max_sequence)
                          HIGGS_FIELD(block_tokens) HIGGS_FIELD(num_blocks) HIGGS_FIELD(kv_bytes)
                              HIGGS_FIELD(weight_bytes) HIGGS_FIELD(workspace_bytes)
                                  HIGGS_FIELD(codec_bytes) HIGGS_FIELD(graph_bytes)
                                      HIGGS_FIELD(device_bytes) HIGGS_FIELD(has_codec)
                                          HIGGS_FIELD(sample_rate) HIGGS_FIELD(samples_per_frame)
                                              HIGGS_FIELD(num_threads) HIGGS_FIELD(cpu_isa)
                                                  HIGGS_FIELD(adapters);
#undef HIGGS_FIELD
}

void bind_stats(py::module_& module) {
  py::class_<RuntimeStats>(module, "RuntimeStats")
#define HIGGS_FIELD(name) .def_readonly(#name, &RuntimeStats::name)
      HIGGS_FIELD(submitted) HIGGS_FIELD(finished) HIGGS_FIELD(cancelled) HIGGS_FIELD(failed)
          HIGGS_FIELD(refused) HIGGS_FIELD(preemptions) HIGGS_FIELD(steps) HIGGS_FIELD(columns)
              HIGGS_FIELD(prompt_rows) HIGGS_FIELD(running) HIGGS_FIELD(waiting)
                  HIGGS_FIELD(free_blocks) HIGGS_FIELD(total_blocks) HIGGS_FIELD(forward_seconds)
                      HIGGS_FIELD(sample_seconds) HIGGS_FIELD(wait_seconds)
                          HIGGS_FIELD(device_seconds) HIGGS_FIELD(graph_seconds)
                              HIGGS_FIELD(graph_steps) HIGGS_FIELD(step_seconds)
                                  HIGGS_FIELD(prefix_positions) HIGGS_FIELD(prefix_hits)
                                      HIGGS_FIELD(prefix_evictions) HIGGS_FIELD(cached_blocks)
                                          HIGGS_FIELD(graph_rows);
#undef HIGGS_FIELD
}

// Shutting down joins threads that may be waiting for the GIL, so it is released meanwhile.
struct Shutdown {
  void operator()(Runtime* runtime) const {
    without_gil([&] { delete runtime; });
  }
};
using Holder = std::unique_ptr<Runtime, Shutdown>;

// Runtimes that are alive when the interpreter ends are shut down before it is torn down: their
// threads must not ask for a GIL that no longer exists.
void track(const py::object& runtime) {
  static py::object* alive = [] {
    auto* set = new py::object(py::module_::import("weakref").attr("WeakSet")());
    py::module_::import("atexit").attr("register")(py::cpp_function([set] {
      for (const py::handle item : py::list(*set)) item.attr("shutdown")();
    }));
    return set;
  }();
  alive->attr("add")(runtime);
}

py::object load(const RuntimeConfig& config) {
  validate(config);
  Holder loaded(load_model([&] { return Runtime::load(config); }).release());
  py::object runtime = py::cast(std::move(loaded));
  track(runtime);
  return runtime;
}

py::array decode_frames(Runtime& runtime, const py::array& codes) {
  const std::vector<std::int32_t> values = to_int32(codes, 2, "codes");
  const auto num_frames = static_cast<std::int32_t>(codes.shape(1));
  std::vector<float> pcm = without_gil([&] { return runtime.decode_frames(values, num_frames); });
  const auto size = static_cast<py::ssize_t>(pcm.size());
  return to_array(std::move(pcm), {size});
}

}  // namespace

void bind_runtime(py::module_& module) {
  bind_config(module);
  bind_info(module);
  bind_stats(module);
  py::class_<Runtime, Holder>(module, "Runtime")
      .def_static("load", &load, py::arg("config"))
      .def(
          "submit",
          [](Runtime& runtime, const Request& request) {
            return without_gil([&] { return runtime.submit(request); });
          },
          py::arg("request"))
      .def("decode_frames", &decode_frames, py::arg("codes"))
      .def_property_readonly("info", [](const Runtime& runtime) { return runtime.info(); })
      .def_property_readonly("stats", &Runtime::stats)
      .def("shutdown", [](Runtime& runtime) { without_gil([&] { runtime.shutdown(); }); });
  module.def("build_info", &build_info);
  module.def("version", &version);
}

}  // namespace higgs_rt::bindings
