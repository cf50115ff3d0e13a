// How a product of prompt rows is launched (sm_90a).
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/prompt_kernel.cuh"
#include "ops/cuda/kernels/prompt_linear.h"
#include "ops/cuda/kernels/tensor_maps.h"

namespace higgs_rt::prompt {

// Lets F have its shared memory, on the current GPU alone.
template <class F, class End>
cudaError_t allow_shared_memory() {
  return cudaFuncSetAttribute(product_kernel<F, End>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              Sizes<F, End>::kBytes);
}

// Clusters of F that run at a time on the current GPU; 0: none.
template <class F, class End>
int active_clusters() {
  if (allow_shared_memory<F, End>() != cudaSuccess) return 0;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = F::kBlocks;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = F::kBlocks;
  config.blockDim = F::kThreads;
  config.dynamicSmemBytes = Sizes<F, End>::kBytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t result =
      cudaOccupancyMaxActiveClusters(&clusters, product_kernel<F, End>, &config);
  return result == cudaSuccess ? clusters : 0;
}

// What a product of so many rows takes, to compare forms by: in each round of blocks the products
// of a tile's rows, or, where those are few, what a multiprocessor takes in of weights and rows.
template <class F, class End>
int cost_of(const End& end, int rows) {
  constexpr int kTileRows = F::kRows * F::kAlong, kEndOfTile = 8;  // its writing, in rows
  constexpr int kRound = std::max(F::kRows, (F::kOutputs + F::kRows) / 2) + kEndOfTile;
  static const int clusters = std::max(active_clusters<F, End>(), 1);
  const int row_tiles = (rows + kTileRows - 1) / kTileRows;
  const int tiles = row_tiles * ((end.tiles() + F::kAcross - 1) / F::kAcross);
  return (tiles + clusters - 1) / clusters * kRound;
}

template <class F, class End>
cudaError_t launch_form(const StreamWeight& weight, const PlainRows& x, const End& end,
                        cudaStream_t stream) {
  constexpr int kBytes = Sizes<F, End>::kBytes, kTileRows = F::kRows * F::kAlong;
  CUtensorMap weights, rows;
  cudaError_t result =
      describe_matrix(weight.data, weight.outputs, weight.inputs, F::kWeightBox, weights);
  if (result == cudaSuccess) {
    result = describe_matrix(x.x, x.rows, weight.inputs, F::kRowBox, rows);
  }
  // At each launch: the one before may have been on another GPU.
  if (result == cudaSuccess) result = allow_shared_memory<F, End>();
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

// The form of least cost of these.
template <class F, class... Others, class End>
cudaError_t launch_cheapest(const StreamWeight& weight, const PlainRows& x, const End& end,
                            cudaStream_t stream) {
  if constexpr (sizeof...(Others) != 0) {
    const int cost = cost_of<F>(end, x.rows);
    if (((cost > cost_of<Others>(end, x.rows)) || ...)) {
      return launch_cheapest<Others...>(weight, x, end, stream);
    }
  }
  return launch_form<F>(weight, x, end, stream);
}

}  // namespace higgs_rt::prompt
