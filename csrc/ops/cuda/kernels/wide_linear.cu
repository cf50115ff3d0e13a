// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include <algorithm>

#include "ops/cuda/kernels/tensor_maps.h"
#include "ops/cuda/kernels/wide_kernel.cuh"

namespace higgs_rt {

using namespace wide;

namespace {

template <int kRows, int kGroups>
cudaError_t launch_sizes(const WideForm& form, const StreamWeight& weight, const PlainRows& x,
                         const WideOutput& output, cudaStream_t stream) {
  using S = Sizes<kRows, kGroups>;
  if (form.weight_stages > kMaxStages || form.row_stages > kMaxStages || form.row_stages < 2 ||
      S::queue_bytes(form.weight_stages, form.row_stages) < S::kSumBytes) {
    return cudaErrorInvalidValue;
  }
  CUtensorMap weight_map, row_map;
  cudaError_t result =
      describe_matrix(weight.data, weight.outputs, weight.inputs, S::kOutputs / 2, weight_map);
  if (result == cudaSuccess) result = describe_matrix(x.x, x.rows, weight.inputs, kRows, row_map);
  const int shared = S::shared_bytes(form.weight_stages, form.row_stages);
  if (result == cudaSuccess) {
    result = cudaFuncSetAttribute(wide_kernel<kRows, kGroups>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  }
  if (result != cudaSuccess) return result;
  const int tiles = (weight.outputs + S::kOutputs - 1) / S::kOutputs;
  const Work work{output,         x.rows,     weight.outputs,
                  weight.inputs,  form.parts, form.weight_stages,
                  form.row_stages};
  return launch_clusters(wide_kernel<kRows, kGroups>, static_cast<unsigned>(form.parts),
                         static_cast<unsigned>(tiles * form.parts), S::kThreads,
                         static_cast<std::size_t>(shared), stream, weight_map, row_map, work);
}

template <int kGroups>
cudaError_t launch_groups(const WideForm& form, const StreamWeight& weight, const PlainRows& x,
                          const WideOutput& output, cudaStream_t stream) {
  if (x.rows <= 32) return launch_sizes<32, kGroups>(form, weight, x, output, stream);
  if (x.rows <= 64) return launch_sizes<64, kGroups>(form, weight, x, output, stream);
  if (x.rows <= 128) return launch_sizes<128, kGroups>(form, weight, x, output, stream);
  return cudaErrorInvalidValue;
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
  const int tiles = (outputs + 127) / 128, chunks = (inputs + kChunk - 1) / kChunk;
  const int most = tiles >= 60 ? 1 : tiles >= 33 ? 2 : 4;
  const int parts = std::max(1, std::min(most, chunks / 4));
  if (rows <= 32) return {128, parts, 12, 8};
  if (rows <= 64) return {128, parts, 10, 8};
  return {128, parts, 8, 6};
}

cudaError_t launch_wide(const WideForm& form, const StreamWeight& weight, const PlainRows& x,
                        const WideOutput& output, cudaStream_t stream) {
  return form.outputs == 64 ? launch_groups<1>(form, weight, x, output, stream)
                            : launch_groups<2>(form, weight, x, output, stream);
}

}  // namespace higgs_rt
