// Chooses the tile width, the cluster and the grid of a weight-streaming product, and launches it.
#pragma once

#include <algorithm>

#include "ops/cuda/kernels/stream_kernel.cuh"

namespace higgs_rt::stream {

// Blocks that share the inputs of an output. Of the inputs alone: the order of a row's sums must
// not depend on the number of rows.
inline int cluster_for(const StreamDevice& device, int inputs) {
  if (device.pairs == 0) return 1;
  return inputs >= 6144 && device.fours != 0 ? 4 : 2;
}

// As many clusters as run beside each other with a multiprocessor for each block: where two blocks
// of one product share a multiprocessor, all others wait for them.
inline int clusters_for(const StreamDevice& device, int cluster, int units) {
  const int room = cluster == 4   ? device.fours
                   : cluster == 2 ? device.pairs
                                  : device.multiprocessors;
  return std::min(room, (units + kUnits - 1) / kUnits);
}

// Most chunks of a block.
inline int chunks_for(const StreamDevice& device, int inputs) {
  const int cluster = cluster_for(device, inputs);
  return (inputs / kChunk + cluster - 1) / cluster;
}

// Steps under way: as few as keep a second block of the same product off a multiprocessor that
// has one (docs/performance.md).
template <int kN>
constexpr int kStagesFor = kN == 8 ? 7 : 4;

// As much as a launch may ever want: the limit belongs to the kernel, which another thread may be
// about to launch with more.
template <class Kernel>
cudaError_t allow_shared_memory(Kernel kernel, const StreamDevice& device) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(device.shared_bytes));
}

template <int kN, class Input, class Output>
cudaError_t launch_width(const StreamDevice& device, const StreamWeight& weight, const Input& input,
                         const Output& output, std::size_t table_bytes, cudaStream_t stream) {
  constexpr int kStages = kStagesFor<kN>;
  const int chunks = chunks_for(device, weight.inputs);
  const Layout<kN, kStages> layout{chunks, input.norm_bytes(kPieces * chunks)};
  const std::size_t bytes = static_cast<std::size_t>(layout.tables()) + table_bytes;
  const auto kernel = stream_kernel<kN, kStages, Input, Output>;
  const cudaError_t result = allow_shared_memory(kernel, device);
  if (result != cudaSuccess) return result;
  const int cluster = cluster_for(device, weight.inputs);
  const int clusters = clusters_for(device, cluster, output.units());
  return launch_clusters(kernel, static_cast<unsigned>(cluster),
                         static_cast<unsigned>(cluster * clusters), kThreads, bytes, stream, weight,
                         input, output, layout);
}

template <class Input, class Output>
cudaError_t launch_product(const StreamDevice& device, const StreamWeight& weight,
                           const Input& input, const Output& output, std::size_t table_bytes,
                           cudaStream_t stream) {
  if (input.rows.rows <= 8) {
    return launch_width<8>(device, weight, input, output, table_bytes, stream);
  }
  if (input.rows.rows > kStreamMaxRows) return cudaErrorInvalidValue;
  return launch_width<16>(device, weight, input, output, table_bytes, stream);
}

}  // namespace higgs_rt::stream
