#include "core/device.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace higgs_rt {

namespace {

constexpr std::size_t kAlignment = 256;

class FinishedEvent final : public DeviceEvent {
 public:
  void record() override {}
  void wait() override {}
};

class RepeatedCalls final : public DeviceGraph {
 public:
  explicit RepeatedCalls(std::function<void()> enqueue) : enqueue_(std::move(enqueue)) {}
  void launch() override { enqueue_(); }

 private:
  std::function<void()> enqueue_;
};

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override { return "cpu"; }

  std::shared_ptr<void> allocate(std::size_t bytes) override {
    const std::size_t rounded = (bytes / kAlignment + 1) * kAlignment;
    void* memory = std::aligned_alloc(kAlignment, rounded);
    if (memory == nullptr) {
      fail(ErrorCode::kResourceExhausted, "cpu", "could not allocate ", rounded, " bytes");
    }
    return {memory, std::free};
  }

  void copy_from_host(void* device, const void* host, std::size_t bytes) override {
    if (bytes != 0) std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, std::size_t bytes) override {
    if (bytes != 0) std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
};

class NoTimer final : public DeviceTimer {
 public:
  void start() override {}
  void stop() override {}
  double collect() override { return 0; }
};

}  // namespace

std::shared_ptr<void> Device::allocate_pinned(std::size_t bytes) {
  return make_cpu_device()->allocate(bytes);
}

void Device::copy_to_pinned(void* pinned, const void* device, std::size_t bytes) {
  copy_to_host(pinned, device, bytes);
}

std::unique_ptr<DeviceEvent> Device::make_event() { return std::make_unique<FinishedEvent>(); }

std::unique_ptr<DeviceGraph> Device::capture(std::function<void()> enqueue) {
  return std::make_unique<RepeatedCalls>(std::move(enqueue));
}

std::unique_ptr<DeviceTimer> Device::make_timer() { return std::make_unique<NoTimer>(); }

DeviceMemory Device::memory() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return {page * static_cast<std::size_t>(::sysconf(_SC_AVPHYS_PAGES)),
          page * static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES))};
}

std::unique_ptr<Device> make_cpu_device() { return std::make_unique<CpuDevice>(); }

std::unique_ptr<Device> make_device(const std::string& name, Priority priority) {
  if (name == "cpu") return make_cpu_device();
  if (name == "cuda") return make_cuda_device(0, priority);
  const std::string prefix = "cuda:";
  if (name.starts_with(prefix) && name.size() > prefix.size() && name.size() < prefix.size() + 4 &&
      name.find_first_not_of("0123456789", prefix.size()) == std::string::npos) {
    return make_cuda_device(std::stoi(name.substr(prefix.size())), priority);
  }
  fail(ErrorCode::kInvalidArgument, "device", "expected cpu, cuda or cuda:N, got \"", name, "\"");
}

}  // namespace higgs_rt
