#include "bench/gpu.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"

namespace higgs_rt::bench {

namespace {

constexpr const char* kWhere = "higgs_bench";
constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr int kPasses = 20;

}  // namespace

double measure_copy_bandwidth(int ordinal) {
  CudaDevice device(ordinal);
  const auto from = device.allocate(kCopyBytes);
  const auto to = device.allocate(kCopyBytes);
  cudaEvent_t begin = nullptr, end = nullptr;
  check_cuda(cudaEventCreate(&begin), kWhere, "cudaEventCreate");
  check_cuda(cudaEventCreate(&end), kWhere, "cudaEventCreate");
  float best = 1e30F;
  for (int pass = 0; pass < kPasses; ++pass) {
    check_cuda(cudaEventRecord(begin, device.stream()), kWhere, "cudaEventRecord");
    check_cuda(cudaMemcpyAsync(to.get(), from.get(), kCopyBytes, cudaMemcpyDeviceToDevice,
                               device.stream()),
               kWhere, "cudaMemcpyAsync");
    check_cuda(cudaEventRecord(end, device.stream()), kWhere, "cudaEventRecord");
    device.synchronize();
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), kWhere, "cudaEventElapsedTime");
    best = std::min(best, milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return 2.0 * static_cast<double>(kCopyBytes) / (1e-3 * static_cast<double>(best));
}

std::int64_t gpu_memory_used(int ordinal) {
  std::size_t free = 0, total = 0;
  check_cuda(cudaSetDevice(ordinal), kWhere, "cudaSetDevice");
  check_cuda(cudaMemGetInfo(&free, &total), kWhere, "cudaMemGetInfo");
  return static_cast<std::int64_t>(total - free);
}

}  // namespace higgs_rt::bench
