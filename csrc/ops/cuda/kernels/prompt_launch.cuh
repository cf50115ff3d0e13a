// How a product of the rows of a few prompts is launched (sm_90a).
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/prompt_kernel.cuh"
#include "ops/cuda/kernels/prompt_linear.h"
#include "ops/cuda/kernels/tensor_maps.h"

namespace higgs_rt::prompt {

// Clusters of F that run at a time on the current GPU; 0: none.
template <class F, class End>
int active_clusters() {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = F::kBlocks;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = F::kBlocks;
  config.blockDim = F::kThreads;
  config.dynamicSmemBytes = Sizes<F, typename End::Pieces>::kBytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t result =
      cudaOccupancyMaxActiveClusters(&clusters, product_kernel<F, End>, &config);
  return result == cudaSuccess ? clusters : 0;
}

template <class F, class End>
cudaError_t launch_form(const StreamWeight& weight, const PlainRows& x, const End& end,
                        cudaStream_t stream) {
  constexpr int kBytes = Sizes<F, typename End::Pieces>::kBytes, kTileRows = F::kRows * F::kAlong;
  CUtensorMap weights, rows;
  cudaError_t result =
      describe_matrix(weight.data, weight.outputs, weight.inputs, F::kWeightBox, weights);
  if (result == cudaSuccess) {
    result = describe_matrix(x.x, x.rows, weight.inputs, F::kRowBox, rows);
  }
  if (result == cudaSuccess) {
    result = cudaFuncSetAttribute(product_kernel<F, End>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  }
  if (result != cudaSuccess) return result;
  static const int clusters = active_clusters<F, End>();  // of the only kind of GPU it runs on
  if (clusters == 0) return cudaErrorInvalidConfiguration;
  const int row_tiles = (x.rows + kTileRows - 1) / kTileRows;
  const Work work{x.rows, weight.inputs, row_tiles,
                  row_tiles * ((end.tiles() + F::kAcross - 1) / F::kAcross)};
  return launch_clusters(product_kernel<F, End>, F::kBlocks,
                         static_cast<unsigned>(F::kBlocks * std::min(work.tiles, clusters)),
                         F::kThreads, static_cast<std::size_t>(kBytes), stream, weights, rows, work,
                         end);
}

}  // namespace higgs_rt::prompt
