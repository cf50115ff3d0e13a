#include "core/cuda/cuda_device.h"

#include "core/cuda/cuda_check.h"

namespace higgs_rt {

CudaDevice::CudaDevice(int ordinal) : ordinal_(ordinal) {
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
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "device",
             "cudaStreamCreateWithFlags");
}

CudaDevice::~CudaDevice() { cudaStreamDestroy(stream_); }  // nobody could act on an error here

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
  return {memory, [](void* pointer) { cudaFree(pointer); }};
}

void CudaDevice::copy_from_host(void* device, const void* host, std::size_t bytes) {
  activate();
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
  check_cuda(cudaStreamSynchronize(stream_), "device", "cudaStreamSynchronize");
}

CudaDevice& as_cuda(Device& device) {
  check(device.kind() == DeviceKind::kCuda, "device", "expected a CUDA device, got ",
        device.name());
  return static_cast<CudaDevice&>(device);
}

std::unique_ptr<Device> make_cuda_device(int ordinal) {
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace higgs_rt
