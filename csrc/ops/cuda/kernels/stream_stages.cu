// Weight-streaming products that end in an activation or in the KV cache.
#include "ops/cuda/kernels/stream_launch.cuh"

namespace higgs_rt {

using namespace stream;

cudaError_t launch_stream_swiglu(const StreamDevice& device, const StreamWeight& weight,
                                 const NormRows& x, __nv_bfloat16* out, cudaStream_t stream) {
  const SwigluOutput output{{}, out, weight.outputs / 2};
  return launch_product(device, weight, NormInput{x}, output, 0, stream);
}

cudaError_t launch_stream_qkv(const StreamDevice& device, const StreamWeight& weight,
                              const NormRows& x, const QkvOutput& out, cudaStream_t stream) {
  const std::size_t bytes = RotatedOutput::table_bytes(x.rows, out.dim);
  return launch_product(device, weight, NormInput{x}, RotatedOutput{out}, bytes, stream);
}

}  // namespace higgs_rt
