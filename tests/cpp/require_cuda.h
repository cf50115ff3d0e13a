#pragma once

#include <memory>

#include "check.h"
#include "core/check.h"
#include "core/device.h"

namespace higgs_rt::testing {

// The first GPU. Stops the case, visibly, when this build or machine has none.
inline std::unique_ptr<Device> require_cuda() {
  try {
    return make_cuda_device(0);
  } catch (const Error& error) {
    SKIP(error.what());
  }
}

}  // namespace higgs_rt::testing
