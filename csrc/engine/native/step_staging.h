// How a step's index arrays and prompt-table rows reach the device: through one upload.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "core/device.h"
#include "core/tensor.h"

namespace higgs_rt {

// Arrays are laid one after another in pinned host memory and uploaded together to one place of
// device memory, so arrays of the same sizes in the same order have the same addresses in every
// step (a graph relies on that). The host memory is a ring: the host may write a step while the
// uploads of earlier ones have not run yet. For one thread.
class StepStaging {
 public:
  // Room for `words` numbers of 4 bytes a step.
  StepStaging(Device& device, std::int64_t words);

  // Starts a step. Waits for an upload only when the host is kSlots steps ahead of the device.
  void begin();

  // Room for the next array: `host` is to be written before upload(), `device` is where it will be.
  struct Array {
    std::span<std::int32_t> host;
    TensorView device;
  };
  // Throws kInternal when the step exceeds its room.
  Array take(const Shape& shape, DType dtype = DType::kI32);
  TensorView add(std::span<const std::int32_t> values, const Shape& shape);

  void upload();  // enqueues

  std::int64_t bytes() const;  // of device memory

 private:
  static constexpr std::size_t kSlots = 4;
  struct Slot {
    std::shared_ptr<void> memory;
    std::unique_ptr<DeviceEvent> uploaded;
  };

  Device& device_;
  std::int64_t words_;
  Tensor memory_;  // [words]
  std::array<Slot, kSlots> slots_;
  std::size_t slot_ = 0;
  std::int64_t used_ = 0;
};

}  // namespace higgs_rt
