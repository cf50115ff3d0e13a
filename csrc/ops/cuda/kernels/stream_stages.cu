// Weight-streaming products that end in an activation or in the KV cache.
#include "ops/cuda/kernels/stream_launch.cuh"

namespace higgs_rt {

using namespace stream;

namespace {

template <class Input>
cudaError_t swiglu(const StreamDevice& device, const StreamWeight& weight, const Input& input,
                   __nv_bfloat16* out, cudaStream_t stream) {
  const SwigluOutput output{{}, out, weight.outputs / 2};
  return launch_product(device, weight, input, output, 0, stream);
}

template <class Input>
cudaError_t qkv(const StreamDevice& device, const StreamWeight& weight, const Input& input,
                const QkvOutput& out, cudaStream_t stream) {
  const std::size_t bytes = RotatedOutput::table_bytes(input.rows.rows, out.dim);
  return launch_product(device, weight, input, RotatedOutput{out}, bytes, stream);
}

}  // namespace

cudaError_t launch_stream_swiglu(const StreamDevice& device, const StreamWeight& weight,
                                 const PlainRows& x, __nv_bfloat16* out, cudaStream_t stream) {
  return swiglu(device, weight, PlainInput{x}, out, stream);
}

cudaError_t launch_stream_swiglu(const StreamDevice& device, const StreamWeight& weight,
                                 const NormRows& x, __nv_bfloat16* out, cudaStream_t stream) {
  return swiglu(device, weight, NormInput{x}, out, stream);
}

cudaError_t launch_stream_qkv(const StreamDevice& device, const StreamWeight& weight,
                              const PlainRows& x, const QkvOutput& out, cudaStream_t stream) {
  return qkv(device, weight, PlainInput{x}, out, stream);
}

cudaError_t launch_stream_qkv(const StreamDevice& device, const StreamWeight& weight,
                              const NormRows& x, const QkvOutput& out, cudaStream_t stream) {
  return qkv(device, weight, NormInput{x}, out, stream);
}

}  // namespace higgs_rt
