// What the opaque handles of the C API hold, and how its functions let no exception out.
#pragma once

#include <memory>
#include <new>
#include <string>

#include "higgs_rt/higgs_rt.h"
#include "higgs_rt/runtime.h"
#include "higgs_rt/speaker.h"

struct higgs_runtime {
  std::shared_ptr<higgs_rt::Runtime> runtime;
};

struct higgs_stream {
  higgs_rt::Stream stream;
  std::int32_t num_codebooks = 0;
  higgs_rt::Chunk chunk;  // what the pointers of the last higgs_chunk refer to
};

struct higgs_speaker {
  std::unique_ptr<higgs_rt::Speaker> speaker;
  higgs_runtime runtime;  // refers to the speaker's
};

namespace higgs_rt::c_api {

std::string& last_error();  // of the calling thread
higgs_status status_of(ErrorCode code);

// Runs `body`, which returns a higgs_status; any exception becomes a status and last_error.
template <class Body>
higgs_status guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    last_error() = error.what();
    return status_of(error.code());
  } catch (const std::bad_alloc&) {
    last_error() = "[memory] expected enough memory, got none";
    return HIGGS_RESOURCE_EXHAUSTED;
  } catch (const std::exception& error) {
    last_error() = error.what();
    return HIGGS_INTERNAL;
  }
}

}  // namespace higgs_rt::c_api
