// Letting other Python threads run.
#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>

#include "bindings/bindings.h"

namespace higgs_rt::bindings {

inline bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// Calls `body` without the GIL and passes on its result or exception. A daemon thread may want the
// GIL back from an interpreter that ends. CPython before 3.14 then ends the thread by unwinding its
// stack, which aborts the process when it meets a destructor (as of py::gil_scoped_release) or an
// exception on its way. So the thread stays here instead; should the end come while it already
// waits for the GIL, nothing is in the way.
template <class Body>
auto without_gil(Body&& body) {
  using Result = std::invoke_result_t<Body>;
  std::optional<std::conditional_t<std::is_void_v<Result>, std::monostate, Result>> result;
  std::exception_ptr error;
  const bool is_finalizer = is_finalizing();  // no other thread has the GIL then
  PyThreadState* state = PyEval_SaveThread();
  try {
    if constexpr (std::is_void_v<Result>) {
      std::forward<Body>(body)();
    } else {
      result = std::forward<Body>(body)();
    }
  } catch (...) {
    error = std::current_exception();
  }
  while (is_finalizing() && !is_finalizer) std::this_thread::sleep_for(std::chrono::hours(1));
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
  if constexpr (!std::is_void_v<Result>) return std::move(*result);
}

}  // namespace higgs_rt::bindings
