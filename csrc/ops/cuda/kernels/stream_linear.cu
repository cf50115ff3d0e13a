// Weight-streaming products whose outputs are stored or added as they are.
#include "ops/cuda/kernels/stream_launch.cuh"

namespace higgs_rt {

using namespace stream;

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
  device.clusters = major >= 9;
  return result;
}

bool stream_fits(const StreamDevice& device, int rows, int inputs, int dim) {
  const int places = rows <= 8    ? layout_for<8>(device, inputs).tables()
                     : rows <= 16 ? layout_for<16>(device, inputs).tables()
                                  : layout_for<32>(device, inputs).tables();
  return static_cast<std::size_t>(places) + RotatedOutput::table_bytes(rows, dim) <=
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
