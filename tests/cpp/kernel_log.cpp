// Which of a test program's kernels ran: with HIGGS_RT_TEST_KERNELS=FILE, a line "1 name" or "0
// name" for each of them at the program's end (names as the linker knows them). It stands before
// the CUDA runtime, which sees the same calls.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

namespace {

class KernelLog {
 public:
  // Never destroyed: kernels are registered before main() and run until its end.
  static KernelLog& get() {
    static auto* const log = new KernelLog;
    return *log;
  }

  void add(const void* function, const char* name) {
    const std::scoped_lock lock(mutex_);
    if (kernels_.empty() && path_ != nullptr) std::atexit([] { get().write(); });
    kernels_[function].name = name;
  }
  void note(const void* function) {
    if (path_ == nullptr) return;
    const std::scoped_lock lock(mutex_);
    if (const auto found = kernels_.find(function); found != kernels_.end()) {
      found->second.ran = true;
    }
  }

 private:
  struct Kernel {
    std::string name;
    bool ran = false;
  };

  void write() {
    const std::scoped_lock lock(mutex_);
    std::ofstream file(path_);
    for (const auto& [function, kernel] : kernels_)
      file << kernel.ran << ' ' << kernel.name << '\n';
  }

  const char* path_ = std::getenv("HIGGS_RT_TEST_KERNELS");
  std::mutex mutex_;
  std::map<const void*, Kernel> kernels_;  // by the host's function
};

// The runtime's own function of that name.
template <class Function>
Function* runtime(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// What nvcc's code calls for each kernel before main(), and what launches one: the first two with
// launches in angle brackets (CUDA 13, CUDA 12), the third through launch.cuh.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" void __cudaRegisterFunction(void** handle, const char* host, char* device,
                                       const char* name, int threads, void* thread, void* block,
                                       void* block_size, void* grid_size, int* warp) {
  using Register =
      void(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*);
  KernelLog::get().add(host, name);
  runtime<Register>("__cudaRegisterFunction")(handle, host, device, name, threads, thread, block,
                                              block_size, grid_size, warp);
}

extern "C" cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  KernelLog::get().note(function);
  return runtime<cudaError_t(cudaKernel_t*, const void*)>("__cudaGetKernel")(kernel, function);
}
// NOLINTEND(bugprone-reserved-identifier)

extern "C" cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** values,
                                        size_t shared_bytes, cudaStream_t stream) {
  KernelLog::get().note(function);
  return runtime<decltype(cudaLaunchKernel)>("cudaLaunchKernel")(function, grid, block, values,
                                                                 shared_bytes, stream);
}

extern "C" cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                           void** values) {
  KernelLog::get().note(function);
  return runtime<decltype(cudaLaunchKernelExC)>("cudaLaunchKernelExC")(config, function, values);
}
