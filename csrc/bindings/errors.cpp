// C++ errors as the classes of higgs_rt.errors:
//   kInvalidArgument   InvalidRequestError   (CheckpointError while a model is loaded)
//   kNotFound          CheckpointError
//   kResourceExhausted QueueFullError        (HiggsError while a model is loaded)
//   kCancelled         CancelledError
//   others             HiggsError
#include "bindings/errors.h"

#include <exception>

namespace higgs_rt::bindings {
namespace {

const char* class_of(ErrorCode code, bool loading) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return loading ? "CheckpointError" : "InvalidRequestError";
    case ErrorCode::kNotFound:
      return "CheckpointError";
    case ErrorCode::kResourceExhausted:
      return loading ? "HiggsError" : "QueueFullError";
    case ErrorCode::kCancelled:
      return "CancelledError";
    case ErrorCode::kUnsupported:
    case ErrorCode::kUnavailable:
    case ErrorCode::kInternal:
      break;
  }
  return "HiggsError";
}

void set_python_error(const Error& error, bool loading) {
  const py::object type =
      py::module_::import("higgs_rt.errors").attr(class_of(error.code(), loading));
  py::set_error(type, error.what());
}

}  // namespace

void raise_loading(const Error& error) {
  set_python_error(error, true);
  throw py::error_already_set();
}

void bind_errors(py::module_& module) {
  static_cast<void>(module);
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_python_error(error, false);
    }
  });
}

}  // namespace higgs_rt::bindings
