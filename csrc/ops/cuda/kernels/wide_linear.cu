// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include <algorithm>

#include "ops/cuda/kernels/tensor_maps.h"
#include "ops/cuda/kernels/wide_kernel.cuh"

namespace higgs_rt {

using namespace wide;

namespace {

template <int kRows>
cudaError_t launch_sizes(const WideForm& form, const StreamWeight& weight, const PlainRows& x,
                         const WideFactors& factors, const WideOutput& output,
                         cudaStream_t stream) {
  using S = Sizes<kRows>;
  if (form.weight_stages > kMaxStages || form.row_stages > kMaxStages || form.row_stages < 2 ||
      S::queue_bytes(form.weight_stages, form.row_stages) < S::kSumBytes) {
    return cudaErrorInvalidValue;
  }
  CUtensorMap weight_map, row_map;
  cudaError_t result =
      describe_matrix(weight.data, weight.outputs, weight.inputs, kOutputs / 2, weight_map);
  if (result == cudaSuccess) result = describe_matrix(x.x, x.rows, weight.inputs, kRows, row_map);
  const int shared = S::shared_bytes(form.weight_stages, form.row_stages);
  if (result == cudaSuccess) {
    result = cudaFuncSetAttribute(wide_kernel<kRows>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared);
  }
  if (result != cudaSuccess) return result;
  const int tiles = wide_tiles(weight.outputs);
  const Work work{output,
                  factors,
                  x.rows,
                  weight.outputs,
                  weight.inputs,
                  form.parts,
                  form.weight_stages,
                  form.row_stages};
  return launch_clusters(wide_kernel<kRows>, static_cast<unsigned>(form.parts),
                         static_cast<unsigned>(tiles * form.parts), kThreads,
                         static_cast<std::size_t>(shared), stream, weight_map, row_map, work);
}

}  // namespace

bool wide_runs() {
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0 && tensor_maps_exist();
}

bool wide_takes(int rows, int outputs, int inputs, int dim) {
  return rows <= kWideMaxRows && outputs % 8 == 0 && inputs % 8 == 0 && dim % 128 == 0;
}

// The parts depend on the weight alone, so that a row has the same bits for every number of rows.
WideForm wide_form(int rows, int outputs, int inputs) {
  const int tiles = wide_tiles(outputs), chunks = (inputs + kChunk - 1) / kChunk;
  const int most = tiles >= 60 ? 1 : tiles >= 33 ? 2 : 4;
  const int parts = std::max(1, std::min(most, chunks / 4));
  if (rows <= 32) return {parts, 12, 8};
  if (rows <= 64) return {parts, 10, 8};
  return {parts, 8, 6};
}

cudaError_t launch_wide(const WideForm& form, const StreamWeight& weight, const PlainRows& x,
                        const WideFactors& factors, const WideOutput& output, cudaStream_t stream) {
  const auto launch = [&](auto launch_sizes) {
    return launch_sizes(form, weight, x, factors, output, stream);
  };
  if (x.rows <= 32) return launch(launch_sizes<32>);
  if (x.rows <= 64) return launch(launch_sizes<64>);
  if (x.rows <= kWideMaxRows) return launch(launch_sizes<kWideMaxRows>);
  return cudaErrorInvalidValue;
}

}  // namespace higgs_rt
