// The CPU with a stream that can be recorded, as a GPU's can.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/check.h"
#include "core/device.h"

namespace higgs_rt::testing {

// capture() calls `enqueue` once, in which contexts of the fake plan do not run; launch() calls it
// again. Copies and allocations in either are errors.
class FakeDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override { return "fake"; }
  std::shared_ptr<void> allocate(std::size_t bytes) override;
  void copy_from_host(void* device, const void* host, std::size_t bytes) override;
  void copy_to_host(void* host, const void* device, std::size_t bytes) override;
  void synchronize() override { refuse_in_graph("synchronize"); }
  std::unique_ptr<DeviceGraph> capture(std::function<void()> enqueue) override;

  enum class Mode { kDirect, kRecording, kReplaying };
  Mode mode() const { return mode_; }
  void replay(const std::function<void()>& enqueue) { call(Mode::kReplaying, enqueue); }

  // Bytes that may still be allocated; -1: no limit.
  std::int64_t bytes_left = -1;
  bool capture_works = true;
  std::int64_t copies = 0;  // from the host
  std::int64_t allocations = 0;

 private:
  void call(Mode mode, const std::function<void()>& enqueue);
  void refuse_in_graph(const char* what) const {
    check_internal(mode_ == Mode::kDirect, "fake_device", "expected no ", what, " in a graph");
  }

  std::unique_ptr<Device> cpu_ = make_cpu_device();
  Mode mode_ = Mode::kDirect;
};

}  // namespace higgs_rt::testing
