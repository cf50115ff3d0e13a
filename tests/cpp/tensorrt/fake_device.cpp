#include "tensorrt/fake_device.h"

#include <utility>

namespace higgs_rt::testing {

namespace {

class Recording final : public DeviceGraph {
 public:
  Recording(FakeDevice& device, std::function<void()> enqueue)
      : device_(device), enqueue_(std::move(enqueue)) {}
  void launch() override { device_.replay(enqueue_); }

 private:
  FakeDevice& device_;
  std::function<void()> enqueue_;
};

}  // namespace

std::shared_ptr<void> FakeDevice::allocate(std::size_t bytes) {
  refuse_in_graph("allocation");
  ++allocations;
  if (bytes_left >= 0) {
    bytes_left -= static_cast<std::int64_t>(bytes);
    if (bytes_left < 0) {
      bytes_left = 0;
      fail(ErrorCode::kResourceExhausted, "device", "could not allocate ", bytes, " bytes");
    }
  }
  return cpu_->allocate(bytes);
}

void FakeDevice::copy_from_host(void* device, const void* host, std::size_t bytes) {
  refuse_in_graph("copy");
  ++copies;
  cpu_->copy_from_host(device, host, bytes);
}

void FakeDevice::copy_to_host(void* host, const void* device, std::size_t bytes) {
  refuse_in_graph("copy");
  cpu_->copy_to_host(host, device, bytes);
}

void FakeDevice::call(Mode mode, const std::function<void()>& enqueue) {
  refuse_in_graph("other graph");
  mode_ = mode;
  try {
    enqueue();
  } catch (...) {
    mode_ = Mode::kDirect;
    throw;
  }
  mode_ = Mode::kDirect;
}

std::unique_ptr<DeviceGraph> FakeDevice::capture(std::function<void()> enqueue) {
  if (!capture_works) fail(ErrorCode::kInternal, "fake_device", "expected work to be recordable");
  call(Mode::kRecording, enqueue);
  return std::make_unique<Recording>(*this, std::move(enqueue));
}

}  // namespace higgs_rt::testing
