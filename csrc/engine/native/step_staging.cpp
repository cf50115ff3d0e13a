#include "engine/native/step_staging.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::int64_t kAlignment = 4;  // words between arrays: 16 bytes, for vector loads

}  // namespace

StepStaging::StepStaging(Device& device, std::int64_t words)
    : device_(device), words_(words), memory_(device, DType::kI32, {words}) {
  for (Slot& slot : slots_) {
    slot.memory = device.allocate_pinned(memory_.view().bytes());
    std::memset(slot.memory.get(), 0, memory_.view().bytes());  // what a step leaves out is defined
    slot.uploaded = device.make_event();
  }
}

std::int64_t StepStaging::bytes() const {
  return static_cast<std::int64_t>(memory_.view().bytes());
}

void StepStaging::begin() {
  slot_ = (slot_ + 1) % kSlots;
  slots_[slot_].uploaded->wait();
  used_ = 0;
}

StepStaging::Array StepStaging::take(const Shape& shape, DType dtype) {
  const std::int64_t count = num_elements(shape);
  check_internal(used_ + count <= words_, "engine", "expected at most ", words_,
                 " numbers in a step's arrays, got ", used_ + count);
  Array array;
  array.host = {static_cast<std::int32_t*>(slots_[slot_].memory.get()) + used_,
                static_cast<std::size_t>(count)};
  array.device = {memory_.as<std::int32_t>() + used_, dtype, shape};
  used_ = std::min(words_, (used_ + count + kAlignment - 1) / kAlignment * kAlignment);
  return array;
}

TensorView StepStaging::add(std::span<const std::int32_t> values, const Shape& shape) {
  const Array array = take(shape);
  std::copy(values.begin(), values.end(), array.host.begin());
  return array.device;
}

void StepStaging::upload() {
  const Slot& slot = slots_[slot_];
  device_.copy_from_host(memory_.view().data, slot.memory.get(),
                         static_cast<std::size_t>(used_) * sizeof(std::int32_t));
  slot.uploaded->record();
}

}  // namespace higgs_rt
