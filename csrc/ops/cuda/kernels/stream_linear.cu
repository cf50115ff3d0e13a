// Weight-streaming products whose outputs are stored or added as they are.
#include "ops/cuda/kernels/stream_launch.cuh"

namespace higgs_rt {

using namespace stream;

namespace {

constexpr auto kClusterKernel =
    stream_kernel<8, kStagesFor<8>, PlainInput, RowsOutput<float, true>>;

// How many clusters run beside each other when a block takes most of a multiprocessor's memory: a
// group of multiprocessors that shares clusters may have a number of them that leaves a rest.
cudaError_t count_clusters(unsigned size, const StreamDevice& device, int& count) {
  const auto kernel = kClusterKernel;
  const std::size_t bytes = device.shared_bytes / 4 * 3;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = size;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = size;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  const cudaError_t result = allow_shared_memory(kernel, device);
  return result != cudaSuccess ? result : cudaOccupancyMaxActiveClusters(&count, kernel, &config);
}

}  // namespace

cudaError_t read_stream_device(int ordinal, StreamDevice& device) {
  int shared = 0, major = 0;
  cudaError_t result =
      cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, ordinal);
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  }
  if (result == cudaSuccess) {
    result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal);
  }
  device.shared_bytes = static_cast<std::size_t>(shared);
  cudaFuncAttributes attributes{};
  if (result == cudaSuccess) {
    result = cudaFuncGetAttributes(&attributes, kClusterKernel);
    device.code = attributes.ptxVersion;
  }
  // Code for less would take itself to be alone in its cluster.
  if (device.code < 90) major = 0;
  if (result != cudaSuccess || major < 9) return result;
  result = count_clusters(2, device, device.pairs);
  return result != cudaSuccess ? result : count_clusters(4, device, device.fours);
}

bool stream_fits(const StreamDevice& device, int inputs, int dim) {
  const int chunks = chunks_for(device, inputs), norms = 2 * 4 * kChunk * chunks;  // at most
  const int places = std::max(Layout<8, kStagesFor<8>>{chunks, norms}.tables(),
                              Layout<16, kStagesFor<16>>{chunks, norms}.tables());
  return static_cast<std::size_t>(places) + RotatedOutput::table_bytes(kStreamMaxRows, dim) <=
         device.shared_bytes;
}

cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const PlainRows& x, __nv_bfloat16* out, cudaStream_t stream) {
  const RowsOutput<__nv_bfloat16, false> output{{}, out, weight.outputs};
  return launch_product(device, weight, PlainInput{x}, output, 0, stream);
}

cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const PlainRows& x, float* out, cudaStream_t stream) {
  const RowsOutput<float, false> output{{}, out, weight.outputs};
  return launch_product(device, weight, PlainInput{x}, output, 0, stream);
}

cudaError_t launch_stream_store(const StreamDevice& device, const StreamWeight& weight,
                                const NormRows& x, float* out, cudaStream_t stream) {
  const RowsOutput<float, false> output{{}, out, weight.outputs};
  return launch_product(device, weight, NormInput{x}, output, 0, stream);
}

cudaError_t launch_stream_add(const StreamDevice& device, const StreamWeight& weight,
                              const PlainRows& x, float* out, cudaStream_t stream) {
  const RowsOutput<float, true> output{{}, out, weight.outputs};
  return launch_product(device, weight, PlainInput{x}, output, 0, stream);
}

}  // namespace higgs_rt
