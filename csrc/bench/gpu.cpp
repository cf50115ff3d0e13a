#include "bench/gpu.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "core/cuda/cuda_check.h"
#include "core/cuda/cuda_device.h"

namespace higgs_rt::bench {

namespace {

constexpr const char* kWhere = "higgs_bench";
constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr int kPasses = 20;

// The little of nvml.h that is needed; the library comes with the driver.
struct NvmlProcess {
  unsigned pid = 0;
  unsigned long long bytes = 0;
  unsigned gpu_instance = 0, compute_instance = 0;
};
constexpr int kNvmlSuccess = 0;
constexpr unsigned long long kNvmlNotAvailable = ~0ull;
constexpr unsigned kMostProcesses = 256;

class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    const auto init = find<int (*)()>("nvmlInit_v2");
    ready_ = init != nullptr && init() == kNvmlSuccess;
  }
  ~Nvml() {
    if (ready_) {
      if (const auto shutdown = find<int (*)()>("nvmlShutdown")) shutdown();
    }
    if (library_ != nullptr) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::int64_t memory_of(unsigned pid, const char* bus_id) const {
    if (!ready_) return -1;
    const auto open = find<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    const auto list =
        find<int (*)(void*, unsigned*, NvmlProcess*)>("nvmlDeviceGetComputeRunningProcesses_v3");
    void* device = nullptr;
    std::vector<NvmlProcess> found(kMostProcesses);
    unsigned count = kMostProcesses;
    if (open == nullptr || list == nullptr || open(bus_id, &device) != kNvmlSuccess ||
        list(device, &count, found.data()) != kNvmlSuccess) {
      return -1;
    }
    for (unsigned i = 0; i < std::min(count, kMostProcesses); ++i) {
      if (found[i].pid == pid && found[i].bytes != kNvmlNotAvailable) {
        return static_cast<std::int64_t>(found[i].bytes);
      }
    }
    return -1;
  }

 private:
  template <class Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_;
  bool ready_ = false;
};

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

std::int64_t own_gpu_memory(int ordinal) {
  std::array<char, 32> bus_id{};
  if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), ordinal) !=
      cudaSuccess) {
    return -1;
  }
  return Nvml().memory_of(static_cast<unsigned>(::getpid()), bus_id.data());
}

}  // namespace higgs_rt::bench
