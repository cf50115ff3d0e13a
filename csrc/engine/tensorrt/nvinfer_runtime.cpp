// Opens plans with TensorRT or TensorRT for RTX. Linked instead of no_tensorrt.cpp.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <utility>

#include "core/cuda/cuda_check.h"
#include "engine/tensorrt/bindings.h"
#include "engine/tensorrt/nvinfer_plan.h"

namespace higgs_rt {

namespace {

constexpr const char* kWhere = "tensorrt";
constexpr std::int64_t kChunk = std::int64_t{16} << 20;

#ifdef TRT_MAJOR_RTX
constexpr const char* kPackage = "tensorrt_rtx";
constexpr std::int32_t kLeastVersion = 10500;  // 1.5.0: isStreamCapturable
#else
constexpr const char* kPackage = "tensorrt";
constexpr std::int32_t kLeastVersion = 101500;  // 10.15.0: aliased outputs
#endif

// A plan of many gigabytes goes to the GPU in pieces; what is asked for may be host or device
// memory.
class PlanReader final : public nvinfer1::IStreamReaderV2 {
 public:
  explicit PlanReader(const std::string& path) : file_(path, std::ios::binary) {}
  bool is_open() const { return file_.is_open(); }

  std::int64_t read(void* destination, std::int64_t bytes, cudaStream_t stream) noexcept override {
    cudaPointerAttributes attributes{};
    const bool device = cudaPointerGetAttributes(&attributes, destination) == cudaSuccess &&
                        attributes.type == cudaMemoryTypeDevice;
    cudaGetLastError();  // memory that CUDA does not know is host memory, not an error
    try {
      return device ? read_to_device(static_cast<char*>(destination), bytes, stream)
                    : read_to_host(static_cast<char*>(destination), bytes);
    } catch (const std::exception& error) {
      std::cerr << "[tensorrt] reading the plan failed: " << error.what() << '\n';
      return -1;
    }
  }

  bool seek(std::int64_t offset, nvinfer1::SeekPosition where) noexcept override {
    file_.clear();
    switch (where) {
      case nvinfer1::SeekPosition::kSET:
        file_.seekg(offset, std::ios::beg);
        break;
      case nvinfer1::SeekPosition::kCUR:
        file_.seekg(offset, std::ios::cur);
        break;
      case nvinfer1::SeekPosition::kEND:
        file_.seekg(offset, std::ios::end);
        break;
    }
    return file_.good();
  }

 private:
  std::int64_t read_to_host(char* destination, std::int64_t bytes) {
    file_.read(destination, bytes);
    return file_.bad() ? -1 : static_cast<std::int64_t>(file_.gcount());
  }

  std::int64_t read_to_device(char* destination, std::int64_t bytes, cudaStream_t stream) {
    chunk_.resize(static_cast<std::size_t>(std::min(bytes, kChunk)));
    std::int64_t done = 0;
    while (done < bytes) {
      const std::int64_t got = read_to_host(chunk_.data(), std::min(bytes - done, kChunk));
      if (got < 0) return -1;
      if (got == 0) break;
      check_cuda(cudaMemcpyAsync(destination + done, chunk_.data(), static_cast<std::size_t>(got),
                                 cudaMemcpyHostToDevice, stream),
                 kWhere, "cudaMemcpyAsync");
      check_cuda(cudaStreamSynchronize(stream), kWhere, "cudaStreamSynchronize");
      done += got;
    }
    return done;
  }

  std::ifstream file_;
  std::vector<char> chunk_;
};

class NvinferRuntime final : public PlanRuntime {
 public:
  explicit NvinferRuntime(CudaDevice& device) : device_(device) {
    check_library(kPackage, kLeastVersion, static_cast<std::int32_t>(NV_TENSORRT_VERSION),
                  getInferLibVersion());
    device_.activate();
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (runtime_ == nullptr) {
      fail(ErrorCode::kUnsupported, kWhere, "expected ", kPackage, ' ', version(), " to start on ",
           device_.name(), ", got a refusal", log_.take_error());
    }
  }

  std::string package() const override { return kPackage; }
  std::string version() const override { return version_text(getInferLibVersion()); }

  std::string target() const override {
    int major = 0;
    int minor = 0;
    const int ordinal = device_.ordinal();
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), kWhere,
               "cudaDeviceGetAttribute");
    check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal), kWhere,
               "cudaDeviceGetAttribute");
    return "sm" + std::to_string(major) + std::to_string(minor);
  }

  std::unique_ptr<Plan> load(const std::string& path) override {
    PlanReader reader(path);
    if (!reader.is_open()) {
      fail(ErrorCode::kNotFound, kWhere, "expected a plan in ", path, ", got no readable file");
    }
    device_.activate();
    const std::size_t free_before = free_memory();
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime_->deserializeCudaEngine(reader));
    if (engine == nullptr) refuse(path, free_before);
    device_.synchronize();
    return std::make_unique<NvinferPlan>(std::move(engine), device_, log_);
  }

 private:
  static std::size_t free_memory() {
    std::size_t free = 0;
    std::size_t total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
  }

  // The vendor says what was wrong in its log alone.
  [[noreturn]] void refuse(const std::string& path, std::size_t free_before) {
    const auto size = std::filesystem::file_size(path);
    const std::string why = log_.take_error();
    const bool memory = why.find("OutOfMemory") != std::string::npos ||
                        why.find("out of memory") != std::string::npos || size > free_before;
    fail(memory ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument, kWhere, "expected ",
         path, " (", size, " bytes) to be a whole plan for ", kPackage, ' ', version(),
         " with room on ", device_.name(), " (", free_before, " bytes free), got a refusal", why);
  }

  CudaDevice& device_;
  NvinferLog log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
};

}  // namespace

void NvinferLog::log(Severity severity, const char* text) noexcept {
  try {
    if (severity <= Severity::kERROR) {
      const std::scoped_lock lock(mutex_);
      if (error_.size() < 2000) error_ += (error_.empty() ? "" : "; ") + std::string(text);
    } else if (severity == Severity::kWARNING) {
      std::cerr << "[tensorrt] warning: " << text << '\n';
    }
  } catch (...) {  // a lost message must not end the process
  }
}

std::string NvinferLog::take_error() {
  const std::scoped_lock lock(mutex_);
  if (error_.empty()) return "";
  return " (" + std::exchange(error_, "") + ")";
}

std::unique_ptr<PlanRuntime> make_plan_runtime(Device& device) {
  check(device.kind() == DeviceKind::kCuda, "device",
        "expected a CUDA device for backend tensorrt, got ", device.name());
  return std::make_unique<NvinferRuntime>(as_cuda(device));
}

}  // namespace higgs_rt
