// C API over the C++ API: lets no exception out.
#include <chrono>
#include <memory>
#include <string>

#include "api/c_convert.h"
#include "api/c_handles.h"

namespace higgs_rt::c_api {

std::string& last_error() {
  thread_local std::string message;
  return message;
}

higgs_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return HIGGS_INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return HIGGS_NOT_FOUND;
    case ErrorCode::kResourceExhausted:
      return HIGGS_RESOURCE_EXHAUSTED;
    case ErrorCode::kUnsupported:
      return HIGGS_UNSUPPORTED;
    case ErrorCode::kCancelled:
      return HIGGS_CANCELLED;
    case ErrorCode::kUnavailable:
      return HIGGS_UNAVAILABLE;
    case ErrorCode::kInternal:
      break;
  }
  return HIGGS_INTERNAL;
}

}  // namespace higgs_rt::c_api

using namespace higgs_rt;         // NOLINT: this file is the C face of that namespace
using namespace higgs_rt::c_api;  // NOLINT

extern "C" {

void higgs_runtime_config_init(higgs_runtime_config* config, size_t struct_size) {
  init_struct(default_config(), config, struct_size);
}

higgs_status higgs_runtime_load(const higgs_runtime_config* config, higgs_runtime** runtime) {
  return guarded([&] {
    require(runtime, "runtime") = nullptr;
    const RuntimeConfig loaded = to_cpp(read_struct(config, default_config(), "config"));
    *runtime = new higgs_runtime{Runtime::load(loaded)};
    return HIGGS_OK;
  });
}

higgs_status higgs_runtime_shutdown(higgs_runtime* runtime) {
  return guarded([&] {
    require(runtime, "runtime").runtime->shutdown();
    return HIGGS_OK;
  });
}

void higgs_runtime_free(higgs_runtime* runtime) { delete runtime; }

higgs_status higgs_runtime_info(const higgs_runtime* runtime, higgs_model_info* info) {
  return guarded([&] {
    write_struct(to_c(require(runtime, "runtime").runtime->info()), info, "info");
    return HIGGS_OK;
  });
}

higgs_status higgs_runtime_adapter_name(const higgs_runtime* runtime, size_t index,
                                        const char** name) {
  return guarded([&] {
    const ModelInfo& info = require(runtime, "runtime").runtime->info();
    require(name, "name") = nullptr;
    if (index >= info.adapters.size()) return HIGGS_END;
    *name = info.adapters[index].c_str();
    return HIGGS_OK;
  });
}

higgs_status higgs_runtime_stats(const higgs_runtime* runtime, higgs_stats* stats) {
  return guarded([&] {
    write_struct(to_c(require(runtime, "runtime").runtime->stats()), stats, "stats");
    return HIGGS_OK;
  });
}

higgs_status higgs_runtime_decode_frames(higgs_runtime* runtime, const int32_t* codes,
                                         int32_t num_frames, float* pcm, size_t capacity) {
  return guarded([&] {
    Runtime& loaded = *require(runtime, "runtime").runtime;
    require(codes, "codes");
    require(pcm, "pcm");
    check(num_frames > 0, "num_frames", "expected at least 1, got ", num_frames);
    const auto frames = static_cast<std::size_t>(num_frames);
    const std::size_t needed = frames * static_cast<std::size_t>(loaded.info().samples_per_frame);
    check(capacity >= needed, "capacity", "expected at least ", needed, ", got ", capacity);
    const std::size_t count = frames * static_cast<std::size_t>(loaded.info().num_codebooks);
    const std::vector<float> decoded = loaded.decode_frames({codes, codes + count}, num_frames);
    std::copy(decoded.begin(), decoded.end(), pcm);
    return HIGGS_OK;
  });
}

void higgs_request_init(higgs_request* request, size_t struct_size) {
  init_struct(default_request(), request, struct_size);
}

higgs_status higgs_submit(higgs_runtime* runtime, const higgs_request* request,
                          higgs_stream** stream) {
  return guarded([&] {
    require(stream, "stream") = nullptr;
    Runtime& loaded = *require(runtime, "runtime").runtime;
    const Request submitted = to_cpp(read_struct(request, default_request(), "request"));
    auto handle = std::make_unique<higgs_stream>();
    handle->num_codebooks = loaded.info().num_codebooks;
    handle->stream = loaded.submit(submitted);
    *stream = handle.release();
    return HIGGS_OK;
  });
}

higgs_status higgs_stream_next(higgs_stream* stream, int64_t timeout_ms, higgs_chunk* chunk) {
  return guarded([&] {
    higgs_stream& handle = require(stream, "stream");
    require_size(chunk, "chunk");  // before a chunk is taken, which would be lost
    auto got = Stream::Poll::kChunk;
    if (timeout_ms < 0) {
      got = handle.stream.next(handle.chunk) ? Stream::Poll::kChunk : Stream::Poll::kEnd;
    } else {
      got = handle.stream.next_for(handle.chunk, std::chrono::milliseconds(timeout_ms));
    }
    if (got == Stream::Poll::kEnd) return HIGGS_END;
    if (got == Stream::Poll::kTimeout) return HIGGS_TIMEOUT;
    write_struct(to_c(handle.chunk, handle.num_codebooks), chunk, "chunk");
    return HIGGS_OK;
  });
}

higgs_status higgs_stream_on_chunk(higgs_stream* stream, higgs_chunk_callback callback,
                                   void* user) {
  return guarded([&] {
    higgs_stream& handle = require(stream, "stream");
    check(callback != nullptr, "callback", "expected a function, got NULL");
    handle.stream.on_chunk([callback, user, books = handle.num_codebooks](const Chunk& chunk) {
      const higgs_chunk view = to_c(chunk, books);
      callback(&view, user);
    });
    return HIGGS_OK;
  });
}

void higgs_stream_cancel(higgs_stream* stream) {
  if (stream != nullptr) stream->stream.cancel();
}

int32_t higgs_stream_done(const higgs_stream* stream) {
  return stream == nullptr || stream->stream.done();
}

uint64_t higgs_stream_id(const higgs_stream* stream) {
  return stream == nullptr ? 0 : stream->stream.id();
}

higgs_status higgs_stream_timing(const higgs_stream* stream, higgs_timing* timing) {
  return guarded([&] {
    write_struct(to_c(require(stream, "stream").stream.timing()), timing, "timing");
    return HIGGS_OK;
  });
}

void higgs_stream_free(higgs_stream* stream) { delete stream; }

const char* higgs_last_error(void) { return last_error().c_str(); }
const char* higgs_version(void) { return version(); }
const char* higgs_build_info(void) {
  static const std::string info = build_info();
  return info.c_str();
}

}  // extern "C"
