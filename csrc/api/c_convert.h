// Conversions between the structs of the C API and those of the C++ API, checked by their size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/check.h"
#include "higgs_rt/higgs_rt.h"
#include "higgs_rt/runtime.h"

namespace higgs_rt::c_api {

template <class T>
T& require(T* pointer, const char* where) {
  check(pointer != nullptr, where, "expected a pointer, got NULL");
  return *pointer;
}

// The caller's struct, completed with `defaults` where it is shorter than ours.
template <class T>
T read_struct(const T* given, T defaults, const char* where) {
  const std::size_t size = require(given, where).struct_size;
  check(size >= sizeof(std::size_t), where, "expected struct_size set by the _init function, got ",
        size);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] == 0) continue;
    fail(ErrorCode::kUnsupported, where, "expected a struct of at most ", sizeof(T),
         " bytes, got fields beyond them (struct_size ", size,
         "): the library is older than its caller");
  }
  std::memcpy(&defaults, given, std::min(size, sizeof(T)));
  return defaults;
}

// struct_size of a struct that is to be written.
template <class T>
std::size_t require_size(const T* out, const char* where) {
  const std::size_t size = require(out, where).struct_size;
  check(size >= sizeof(std::size_t), where, "expected struct_size set (HIGGS_STRUCT), got ", size);
  return size;
}

template <class T>
void write_struct(T values, T* out, const char* where) {
  values.struct_size = require_size(out, where);
  std::memcpy(out, &values, std::min(values.struct_size, sizeof(T)));
}

// Defaults into a struct of which the caller knows `size` bytes.
template <class T>
void init_struct(T defaults, T* out, std::size_t size) {
  if (out == nullptr || size < sizeof(std::size_t)) return;
  std::memset(out, 0, size);
  defaults.struct_size = size;
  std::memcpy(out, &defaults, std::min(size, sizeof(T)));
}

higgs_runtime_config default_config();
higgs_request default_request();

// Throw kInvalidArgument on NULL pointers and unknown enumerators.
RuntimeConfig to_cpp(const higgs_runtime_config& config);
Request to_cpp(const higgs_request& request);

// The result points into `chunk`.
higgs_chunk to_c(const Chunk& chunk, std::int32_t num_codebooks);
// The result points into `info`.
higgs_model_info to_c(const ModelInfo& info);
higgs_stats to_c(const RuntimeStats& stats);
higgs_timing to_c(const RequestTiming& timing);

}  // namespace higgs_rt::c_api
