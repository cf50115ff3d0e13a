// Raising the exceptions of higgs_rt.errors.
#pragma once

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "higgs_rt/error.h"

namespace higgs_rt::bindings {

// Raises `error`, which came up while a model was loaded. Needs the GIL.
[[noreturn]] void raise_loading(const Error& error);

// Runs `load` without the GIL and raises its errors as those of a model directory.
template <class Load>
auto load_model(Load&& load) {
  try {
    return without_gil(load);
  } catch (const Error& error) {
    raise_loading(error);
  }
}

}  // namespace higgs_rt::bindings
