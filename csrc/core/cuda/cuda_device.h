// One GPU and the one stream on which everything of a Device runs in order.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>

#include "core/device.h"

namespace higgs_rt {

// The memory that a device's allocate_pinned() gave out.
class PinnedRanges;

// copy_from_host() may return before a copy from pinned memory has run: leave such memory alone
// until synchronize(). Ordinary memory may be reused at once. copy_to_host() waits. Small copies
// from and to memory of allocate_pinned() are kernels (core/cuda/copy_words.h).
class CudaDevice final : public Device {
 public:
  // Throws kNotFound when there is no such GPU.
  explicit CudaDevice(int ordinal, Priority priority = Priority::kHigh);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override;
  std::shared_ptr<void> allocate(std::size_t bytes) override;
  void copy_from_host(void* device, const void* host, std::size_t bytes) override;
  void copy_to_host(void* host, const void* device, std::size_t bytes) override;
  void synchronize() override;
  std::shared_ptr<void> allocate_pinned(std::size_t bytes) override;
  void copy_to_pinned(void* pinned, const void* device, std::size_t bytes) override;
  std::unique_ptr<DeviceEvent> make_event() override;
  std::unique_ptr<DeviceGraph> capture(std::function<void()> enqueue) override;
  std::unique_ptr<DeviceTimer> make_timer() override;
  DeviceMemory memory() override;
  std::size_t allocated_bytes() const override { return *allocated_; }

  int ordinal() const { return ordinal_; }
  Priority priority() const { return priority_; }
  cudaStream_t stream() const { return stream_; }
  // Makes this GPU the calling thread's current one; needed before launches and allocations.
  void activate() const;

 private:
  int ordinal_;
  Priority priority_;
  cudaStream_t stream_ = nullptr;
  // Shared with what frees the memory.
  std::shared_ptr<std::atomic<std::size_t>> allocated_ =
      std::make_shared<std::atomic<std::size_t>>(0);
  std::shared_ptr<PinnedRanges> pinned_;
};

// Throws kInvalidArgument when `device` is not a CUDA device.
CudaDevice& as_cuda(Device& device);

}  // namespace higgs_rt
