// Finds the runs of rows of one sequence in a step of prompt rows, and cuts them into tiles.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/attention.h"

namespace higgs_rt {

namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The largest value of this thread and those before it in the block, and before `floor`.
__device__ int running_max(int value, int floor) {
  __shared__ int of_warp[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const int before = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value = max(value, before);
  }
  __syncthreads();
  if (lane == 31) of_warp[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value = max(value, of_warp[w]);
  return max(value, floor);
}

// The tile that begins with this row.
__device__ AttentionTile tile_from(const AttentionShape& shape, const AttentionData& data,
                                   int first) {
  const int sequence = data.sequence[first];
  AttentionTile tile{first, 1, data.position[first] + 1, sequence};
  bool goes_on = true;
#pragma unroll 4
  for (int i = 1; i < tile_rows(shape); ++i) {
    const int row = min(first + i, static_cast<int>(shape.rows) - 1);
    goes_on = goes_on && row == first + i && data.sequence[row] == sequence;
    if (!goes_on) continue;
    ++tile.rows;
    tile.length = max(tile.length, data.position[row] + 1);
  }
  return tile;
}

// One block. The order of the tiles differs from run to run; no result depends on it. A prompt's
// last tiles have the longest context: they come first, behind what is no tile.
__global__ void __launch_bounds__(kThreads)
    attention_plan_kernel(AttentionShape shape, AttentionData data, AttentionTile* plan, int most) {
  __shared__ int tiles, last_start;
  grid_wait();
  if (threadIdx.x == 0) tiles = last_start = 0;
  __syncthreads();
  const int rows = static_cast<int>(shape.rows), tile = tile_rows(shape);
  const auto sequence = [&](int row) { return row < 0 || row >= rows ? -1 : data.sequence[row]; };
  for (int base = 0; base < rows; base += kThreads) {
    const int row = base + static_cast<int>(threadIdx.x), own = sequence(row);
    const bool first = own >= 0 && sequence(row - 1) != own;
    const int start = running_max(first ? row : 0, last_start);
    if (own >= 0 && (row - start) % tile == 0) {
      plan[most - 1 - atomicAdd(&tiles, 1)] = tile_from(shape, data, row);
    }
    __syncthreads();
    if (threadIdx.x == kThreads - 1) last_start = start;
    __syncthreads();
  }
  for (int i = static_cast<int>(threadIdx.x); i < most - tiles; i += kThreads) plan[i] = {};
  // The kernels behind read the plan before they wait.
  __threadfence();
  __syncthreads();
  grid_launch_next();
}

}  // namespace

cudaError_t launch_attention_plan(const AttentionShape& shape, const AttentionData& data,
                                  const AttentionMemory& memory, std::int64_t tiles,
                                  cudaStream_t stream) {
  return launch(attention_plan_kernel, 1, kThreads, 0, stream, shape, data, memory.plan,
                static_cast<int>(tiles));
}

}  // namespace higgs_rt
