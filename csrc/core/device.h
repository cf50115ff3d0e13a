// Where tensors live and in which order work on them runs.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace higgs_rt {

enum class DeviceKind { kCpu, kCuda };

// A point in the order of a device's work.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // Behind everything that has been enqueued so far; replaces the last record().
  virtual void record() = 0;
  // Waits until the device has come to the recorded point; returns at once without one.
  virtual void wait() = 0;
};

// Work that was enqueued once into a recording and runs as a whole at every launch().
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  virtual void launch() = 0;  // enqueues
};

// Times a device's work, from where start() stands in its order to where stop() does.
class DeviceTimer {
 public:
  virtual ~DeviceTimer() = default;
  virtual void start() = 0;
  virtual void stop() = 0;
  // Seconds of the pairs that have ended since the last call; never waits. Pairs that the caller
  // leaves too long are lost.
  virtual double collect() = 0;
};

struct DeviceMemory {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
};

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

  // What follows is, unless overridden, for a device whose calls have finished when they return.

  // Host memory that copies run from and to without the host waiting. As allocate().
  virtual std::shared_ptr<void> allocate_pinned(std::size_t bytes);
  // copy_to_host() that only enqueues; `pinned` is memory of allocate_pinned().
  virtual void copy_to_pinned(void* pinned, const void* device, std::size_t bytes);
  virtual std::unique_ptr<DeviceEvent> make_event();
  // Records what `enqueue` enqueues from the calling thread; it is not run. Addresses and sizes are
  // those of the recording at every launch, and the memory must stay. `enqueue` must neither
  // allocate nor wait. Without an override every launch() calls `enqueue`.
  virtual std::unique_ptr<DeviceGraph> capture(std::function<void()> enqueue);
  virtual std::unique_ptr<DeviceTimer> make_timer();  // without an override: measures nothing
  // Of the whole machine or GPU, other processes included.
  virtual DeviceMemory memory();
  // Live allocations of this object; 0 on the CPU, where nobody counts them.
  virtual std::size_t allocated_bytes() const { return 0; }
};

// Among the devices of one GPU: whose work goes first where both have some. The CPU has no such
// order.
enum class Priority { kHigh, kLow };

std::unique_ptr<Device> make_cpu_device();
// Throws kUnsupported when this build has no CUDA, kNotFound when there is no such GPU.
std::unique_ptr<Device> make_cuda_device(int ordinal, Priority priority = Priority::kHigh);
// "cpu", "cuda" or "cuda:N".
std::unique_ptr<Device> make_device(const std::string& name, Priority priority = Priority::kHigh);

}  // namespace higgs_rt
