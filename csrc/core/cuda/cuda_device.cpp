#include "core/cuda/cuda_device.h"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "core/cuda/copy_words.h"
#include "core/cuda/cuda_check.h"

namespace higgs_rt {

namespace {

class CudaEvent final : public DeviceEvent {
 public:
  explicit CudaEvent(cudaStream_t stream) : stream_(stream) {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "device",
               "cudaEventCreateWithFlags");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record() override {
    check_cuda(cudaEventRecord(event_, stream_), "device", "cudaEventRecord");
  }
  void wait() override {
    check_cuda(cudaEventSynchronize(event_), "device", "cudaEventSynchronize");
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t event_ = nullptr;
};

class CudaTimer final : public DeviceTimer {
 public:
  explicit CudaTimer(cudaStream_t stream) : stream_(stream) {
    for (Pair& pair : pairs_) {
      for (cudaEvent_t* event : {&pair.start, &pair.stop}) {
        check_cuda(cudaEventCreate(event), "device", "cudaEventCreate");
      }
    }
  }
  ~CudaTimer() override {
    for (const Pair& pair : pairs_) {
      cudaEventDestroy(pair.start);
      cudaEventDestroy(pair.stop);
    }
  }
  CudaTimer(const CudaTimer&) = delete;
  CudaTimer& operator=(const CudaTimer&) = delete;

  void start() override {
    check_cuda(cudaEventRecord(pairs_[stopped_ % kPairs].start, stream_), "device",
               "cudaEventRecord");
  }
  void stop() override {
    check_cuda(cudaEventRecord(pairs_[stopped_ % kPairs].stop, stream_), "device",
               "cudaEventRecord");
    ++stopped_;
    if (stopped_ - collected_ >= kPairs) collected_ = stopped_ - kPairs + 1;
  }
  double collect() override {
    double seconds = 0;
    for (; collected_ != stopped_; ++collected_) {
      const Pair& pair = pairs_[collected_ % kPairs];
      // Asked first: compute-sanitizer takes cudaEventElapsedTime's "not ready" for an error.
      if (cudaEventQuery(pair.stop) == cudaErrorNotReady) {
        static_cast<void>(cudaGetLastError());  // or the next launch would report it
        break;
      }
      float milliseconds = 0;
      check_cuda(cudaEventElapsedTime(&milliseconds, pair.start, pair.stop), "device",
                 "cudaEventElapsedTime");
      seconds += static_cast<double>(milliseconds) / 1000;
    }
    return seconds;
  }

 private:
  static constexpr std::uint64_t kPairs = 8;
  struct Pair {
    cudaEvent_t start = nullptr, stop = nullptr;
  };
  cudaStream_t stream_;
  std::array<Pair, kPairs> pairs_;
  std::uint64_t stopped_ = 0, collected_ = 0;
};

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(cudaStream_t stream, const std::function<void()>& enqueue) : stream_(stream) {
    cudaGraph_t graph = record(enqueue);
    const cudaError_t result = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(result, "device", "cudaGraphInstantiate");
    check_cuda(cudaGraphUpload(executable_, stream_), "device", "cudaGraphUpload");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void launch() override {
    check_cuda(cudaGraphLaunch(executable_, stream_), "device", "cudaGraphLaunch");
  }

 private:
  // Thread-local, so that other threads may go on allocating meanwhile.
  cudaGraph_t record(const std::function<void()>& enqueue) {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "device",
               "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream_, &graph), "device", "cudaStreamEndCapture");
    return graph;
  }

  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

class PinnedRanges {
 public:
  void add(const void* begin, std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    ends_[address(begin)] = address(begin) + bytes;
  }
  void remove(const void* begin) {
    const std::scoped_lock lock(mutex_);
    ends_.erase(address(begin));
  }
  bool hold(const void* begin, std::size_t bytes) const {
    const std::scoped_lock lock(mutex_);
    auto after = ends_.upper_bound(address(begin));
    return after != ends_.begin() && address(begin) + bytes <= (--after)->second;
  }

 private:
  static std::uintptr_t address(const void* memory) {
    return reinterpret_cast<std::uintptr_t>(memory);
  }
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> ends_;  // by begin
};

CudaDevice::CudaDevice(int ordinal, Priority priority)
    : ordinal_(ordinal), priority_(priority), pinned_(std::make_shared<PinnedRanges>()) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) {
    fail(ErrorCode::kNotFound, "device", "cuda:", ordinal,
         " was asked for, but no GPU can be used: ", cudaGetErrorString(result));
  }
  if (ordinal < 0 || ordinal >= count) {
    fail(ErrorCode::kNotFound, "device", "expected a GPU in [0, ", count, "), got cuda:", ordinal);
  }
  activate();
  int lowest = 0, highest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "device",
             "cudaDeviceGetStreamPriorityRange");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                          priority == Priority::kHigh ? highest : lowest),
             "device", "cudaStreamCreateWithPriority");
}

CudaDevice::~CudaDevice() {  // nobody could act on an error here
  cudaSetDevice(ordinal_);
  cudaStreamDestroy(stream_);
}

std::string CudaDevice::name() const { return "cuda:" + std::to_string(ordinal_); }

void CudaDevice::activate() const {
  check_cuda(cudaSetDevice(ordinal_), "device", "cudaSetDevice");
}

std::shared_ptr<void> CudaDevice::allocate(std::size_t bytes) {
  activate();
  void* memory = nullptr;
  const cudaError_t result = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
  if (result != cudaSuccess) {
    cudaGetLastError();  // running out of memory leaves the GPU usable: clear the error
    fail(ErrorCode::kResourceExhausted, "device", "could not allocate ", bytes, " bytes on ",
         name(), ": ", cudaGetErrorString(result));
  }
  *allocated_ += bytes;
  return {memory, [counter = allocated_, bytes, ordinal = ordinal_](void* pointer) {
            cudaSetDevice(ordinal);  // the thread may be one that has called nothing of CUDA's yet
            cudaFree(pointer);
            *counter -= bytes;
          }};
}

void CudaDevice::copy_from_host(void* device, const void* host, std::size_t bytes) {
  activate();
  if (can_copy_words(device, host, bytes) && pinned_->hold(host, bytes)) {
    return check_cuda(launch_copy_words(device, host, bytes, stream_), "device", "copy_words");
  }
  check_cuda(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "device",
             "cudaMemcpyAsync to the GPU");
}

void CudaDevice::copy_to_host(void* host, const void* device, std::size_t bytes) {
  activate();
  check_cuda(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "device",
             "cudaMemcpyAsync from the GPU");
  synchronize();
}

void CudaDevice::synchronize() {
  activate();
  check_cuda(cudaStreamSynchronize(stream_), "device", "cudaStreamSynchronize");
}

std::shared_ptr<void> CudaDevice::allocate_pinned(std::size_t bytes) {
  activate();
  void* memory = nullptr;
  const cudaError_t result = cudaMallocHost(&memory, bytes == 0 ? 1 : bytes);
  if (result != cudaSuccess) {
    cudaGetLastError();
    fail(ErrorCode::kResourceExhausted, "device", "could not allocate ", bytes,
         " bytes of pinned memory: ", cudaGetErrorString(result));
  }
  pinned_->add(memory, bytes);
  return {memory, [ranges = pinned_, ordinal = ordinal_](void* pointer) {
            ranges->remove(pointer);
            cudaSetDevice(ordinal);
            cudaFreeHost(pointer);
          }};
}

void CudaDevice::copy_to_pinned(void* pinned, const void* device, std::size_t bytes) {
  activate();
  if (can_copy_words(pinned, device, bytes) && pinned_->hold(pinned, bytes)) {
    return check_cuda(launch_copy_words(pinned, device, bytes, stream_), "device", "copy_words");
  }
  check_cuda(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, stream_), "device",
             "cudaMemcpyAsync from the GPU");
}

std::unique_ptr<DeviceEvent> CudaDevice::make_event() {
  activate();
  return std::make_unique<CudaEvent>(stream_);
}

std::unique_ptr<DeviceGraph> CudaDevice::capture(std::function<void()> enqueue) {
  activate();
  return std::make_unique<CudaGraph>(stream_, enqueue);
}

std::unique_ptr<DeviceTimer> CudaDevice::make_timer() {
  activate();
  return std::make_unique<CudaTimer>(stream_);
}

DeviceMemory CudaDevice::memory() {
  activate();
  DeviceMemory memory;
  check_cuda(cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes), "device", "cudaMemGetInfo");
  return memory;
}

CudaDevice& as_cuda(Device& device) {
  check(device.kind() == DeviceKind::kCuda, "device", "expected a CUDA device, got ",
        device.name());
  return static_cast<CudaDevice&>(device);
}

std::unique_ptr<Device> make_cuda_device(int ordinal, Priority priority) {
  return std::make_unique<CudaDevice>(ordinal, priority);
}

}  // namespace higgs_rt
