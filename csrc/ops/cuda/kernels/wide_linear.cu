// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include <algorithm>
#include <climits>

#include "ops/cuda/kernels/tensor_maps.h"
#include "ops/cuda/kernels/wide_kernel.cuh"

namespace higgs_rt {

using namespace wide;

namespace {

int chunks_of(int inputs) { return (inputs + kChunk - 1) / kChunk; }

// Blocks that split the inputs, where there are too few tiles for the GPU: the fastest on an H200
// (docs/performance.md). They depend on the weight alone, so that a row has the same bits for every
// number of rows.
int parts_of(int outputs, int inputs) {
  const int tiles = wide_tiles(outputs);
  const int most = tiles >= 60 ? 1 : tiles >= 33 ? 2 : 4;
  return std::max(1, std::min(most, chunks_of(inputs) / 4));
}

// Who multiplies which inputs and ends which rows, and where the sums of the others come in.
void share_out(int inputs, int stages, Work& work) {
  const int eights = (work.rows + 7) / 8, chunks = chunks_of(inputs);
  for (int part = 0; part <= work.parts; ++part) {
    work.chunks[part] = static_cast<short>(chunks * part / work.parts);
    work.eights[part] = static_cast<short>(eights * part / work.parts);
  }
  for (int part = 0; part < work.parts; ++part) {
    const int count = work.chunks[part + 1] - work.chunks[part];
    work.open_stage[part] = static_cast<short>(count % stages);
  }
}
// Whether sums come in in stages that are not the last chunk's.
template <int kRows>
bool has_room(int parts) {
  const int most = (kRows / 8 + parts - 1) / parts;  // eights of a block
  const int stages = (parts * most + kStageUnits - 1) / kStageUnits;
  return parts >= 1 && parts <= kMaxParts && stages < Sizes<kRows>::kWeightStages;
}

// Whether the next kernel may start at once: where that was faster on an H200.
constexpr bool at_once(int rows, WideEnd end) {
  return end == WideEnd::kSwiglu || (end == WideEnd::kAdd && rows <= 48);
}

template <int kRows, WideEnd kEnd>
cudaError_t launch_sizes(const StreamWeight& weight, const PlainRows& x, const WideFactors& factors,
                         const WideOutput& output, cudaStream_t stream) {
  using S = Sizes<kRows>;
  const bool has_factors = factors.squares != nullptr;
  const int parts = parts_of(weight.outputs, weight.inputs);
  if (!has_room<kRows>(parts) || chunks_of(weight.inputs) > SHRT_MAX ||
      (kEnd == WideEnd::kAdd && has_factors)) {
    return cudaErrorInvalidValue;
  }
  CUtensorMap weight_map, row_map;
  cudaError_t result =
      describe_matrix(weight.data, weight.outputs, weight.inputs, kOutputs / 2, weight_map);
  if (result == cudaSuccess) result = describe_matrix(x.x, x.rows, weight.inputs, kRows, row_map);
  const auto kernel = wide_kernel<kRows, kEnd>;
  if (result == cudaSuccess) {
    result =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  }
  if (result != cudaSuccess) return result;
  Work work{};
  work.parts = parts, work.rows = x.rows, work.outputs = weight.outputs;
  work.upper = kEnd == WideEnd::kSwiglu ? weight.outputs / 2
               : kEnd == WideEnd::kQkv  ? output.qkv.dim / 2
                                        : kOutputs / 2;
  work.head_tiles = output.qkv.dim / kOutputs;
  work.at_once = at_once(x.rows, kEnd);
  work.factors = factors, work.to = output;
  share_out(weight.inputs, S::kWeightStages, work);
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(wide_tiles(weight.outputs)));
  return launch_clusters(kernel, grid.x, grid, kThreads, static_cast<std::size_t>(S::kSharedBytes),
                         stream, work, weight_map, row_map);
}

template <WideEnd kEnd>
cudaError_t launch_end(const StreamWeight& weight, const PlainRows& x, const WideFactors& factors,
                       const WideOutput& output, cudaStream_t stream) {
  const auto launch = [&](auto launch_sizes) {
    return launch_sizes(weight, x, factors, output, stream);
  };
  if (x.rows <= 16) return launch(launch_sizes<16, kEnd>);
  if (x.rows <= 32) return launch(launch_sizes<32, kEnd>);
  if (x.rows <= 48) return launch(launch_sizes<48, kEnd>);
  if (x.rows <= 64) return launch(launch_sizes<64, kEnd>);
  if (x.rows <= 80) return launch(launch_sizes<80, kEnd>);
  if (x.rows <= 96) return launch(launch_sizes<96, kEnd>);
  if (x.rows <= 112) return launch(launch_sizes<112, kEnd>);
  if (x.rows <= kWideMaxRows) return launch(launch_sizes<kWideMaxRows, kEnd>);
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

cudaError_t launch_wide(const StreamWeight& weight, const PlainRows& x, const WideFactors& factors,
                        const WideOutput& output, cudaStream_t stream) {
  const auto launch = [&](auto launch_end) {
    return launch_end(weight, x, factors, output, stream);
  };
  switch (output.end) {
    case WideEnd::kStoreBf16:
      return launch(launch_end<WideEnd::kStoreBf16>);
    case WideEnd::kStoreF32:
      return launch(launch_end<WideEnd::kStoreF32>);
    case WideEnd::kAdd:
      return launch(launch_end<WideEnd::kAdd>);
    case WideEnd::kSwiglu:
      return launch(launch_end<WideEnd::kSwiglu>);
    case WideEnd::kQkv:
      return launch(launch_end<WideEnd::kQkv>);
  }
  return cudaErrorInvalidValue;
}

}  // namespace higgs_rt
