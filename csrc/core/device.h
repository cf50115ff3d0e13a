// Where tensors live and in which order work on them runs.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace higgs_rt {

enum class DeviceKind { kCpu, kCuda };

// Allocation and ordered copies of one device. Work enqueued through one Device runs in order;
// on the CPU every call has finished when it returns.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;
  // At least 1 byte, aligned to 256 bytes. Throws kResourceExhausted with the size.
  virtual std::shared_ptr<void> allocate(std::size_t bytes) = 0;
  virtual void copy_from_host(void* device, const void* host, std::size_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* device, std::size_t bytes) = 0;
  virtual void synchronize() = 0;
};

std::unique_ptr<Device> make_cpu_device();
// Throws kUnsupported when this build has no CUDA, kNotFound when there is no such GPU.
std::unique_ptr<Device> make_cuda_device(int ordinal);
// "cpu", "cuda" or "cuda:N".
std::unique_ptr<Device> make_device(const std::string& name);

}  // namespace higgs_rt
