#include "ops/ops.h"

namespace higgs_rt {

std::unique_ptr<Ops> make_ops(Device& device, ThreadPool& pool) {
  return device.kind() == DeviceKind::kCpu ? make_cpu_ops(device, pool) : make_cuda_ops(device);
}

}  // namespace higgs_rt
