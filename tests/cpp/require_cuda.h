#pragma once

#include <memory>
#include <vector>

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

// All GPUs, or as above.
inline std::vector<std::unique_ptr<Device>> require_all_cuda() {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(require_cuda());
  try {
    while (true) devices.push_back(make_cuda_device(static_cast<int>(devices.size())));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;  // a GPU that is there and does not work
    return devices;
  }
}

}  // namespace higgs_rt::testing
