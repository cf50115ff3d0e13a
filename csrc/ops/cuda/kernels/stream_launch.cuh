// Chooses the tile width, the cluster and the grid of a weight-streaming product, and launches it.
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/stream_kernel.cuh"

namespace higgs_rt::stream {

// Blocks that share the inputs of an output. Of the inputs alone: the order of a row's sums must
// not depend on the number of rows.
inline int cluster_for(const StreamDevice& device, int inputs) {
  if (!device.clusters) return 1;
  return inputs >= 6144 ? 8 : inputs >= 2048 ? 4 : 2;
}

// As many clusters as the GPU has room for beside each other, or fewer that all have equally much.
inline StreamGrid grid_for(const StreamDevice& device, int inputs, int units) {
  const int cluster = cluster_for(device, inputs), tiles = (units + kUnits - 1) / kUnits;
  const int room = std::max(1, device.multiprocessors / cluster);
  const int tiles_each = (tiles + room - 1) / room;
  return {cluster, (tiles + tiles_each - 1) / tiles_each};
}

template <int kN>
Layout<kN> layout_for(const StreamDevice& device, int inputs) {
  const int cluster = cluster_for(device, inputs);
  return {(inputs / kChunk + cluster - 1) / cluster};
}

template <int kN, class Input, class Output>
cudaError_t launch_width(const StreamDevice& device, const StreamWeight& weight, const Input& input,
                         const Output& output, std::size_t table_bytes, cudaStream_t stream) {
  const Layout<kN> layout = layout_for<kN>(device, weight.inputs);
  const std::size_t bytes = static_cast<std::size_t>(layout.tables()) + table_bytes;
  const auto kernel = stream_kernel<kN, Input, Output>;
  const cudaError_t result = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (result != cudaSuccess) return result;
  const StreamGrid grid = grid_for(device, weight.inputs, output.units());
  return launch_clusters(kernel, static_cast<unsigned>(grid.cluster),
                         static_cast<unsigned>(grid.cluster * grid.clusters), kThreads, bytes,
                         stream, weight, input, output, layout);
}

template <class Input, class Output>
cudaError_t launch_product(const StreamDevice& device, const StreamWeight& weight,
                           const Input& input, const Output& output, std::size_t table_bytes,
                           cudaStream_t stream) {
  const int rows = input.rows.rows;
  if (rows <= 8) return launch_width<8>(device, weight, input, output, table_bytes, stream);
  if (rows <= 16) return launch_width<16>(device, weight, input, output, table_bytes, stream);
  if constexpr (Input::kNorm) {
    return cudaErrorInvalidValue;
  } else {
    if (rows > kStreamMaxRows) return cudaErrorInvalidValue;
    return launch_width<32>(device, weight, input, output, table_bytes, stream);
  }
}

}  // namespace higgs_rt::stream
