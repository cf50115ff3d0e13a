// The product of prompt rows (sm_90a; prompt_form.cuh says how its work is shared out). One warp
// asks for weights, from before the kernels ahead have finished, another one for rows; groups of
// four warps multiply.
#pragma once

#include "ops/cuda/kernels/prompt_feed.cuh"
#include "ops/cuda/kernels/prompt_finish.cuh"
#include "ops/cuda/kernels/prompt_wgmma.cuh"

namespace higgs_rt::prompt {

// Four warps: the sums of a group's outputs of a tile.
template <class F, class End, class Place>
__device__ inline void multiply_tile(const Queue<F, End>& queue, const Member<F>& me, Place& turn,
                                     int warp, int chunks, float (&sum)[F::kRows / 2]) {
  const int group = warp / 4, lane = static_cast<int>(threadIdx.x) % 32;
  const bool tells = lane < F::kPeers;
  const unsigned peer = tells ? me.peer(lane) : 0;
#pragma unroll
  for (float& s : sum) s = 0.0f;
  int before = -1;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    wait_barrier(queue.full + 8 * turn.slot, turn.parity);
    const std::uint32_t stage = queue.stage(turn.slot);
    const std::uint64_t a = wide::tile_at(stage + group * F::kGroupOutputs * kRowBytes);
    const std::uint64_t b = wide::tile_at(stage + F::kWeightBytes);
    begin_products();
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
#pragma unroll
      for (int p = 0; p < F::kProducts; ++p) {
        auto& part = *reinterpret_cast<float (*)[F::kEach / 2]>(sum + p * (F::kEach / 2));
        multiply(part, a + 2 * k, b + 2 * k + p * (F::kEach * kRowBytes / 16));
      }
    }
    end_products();
    wait_products<1>();
    if (before >= 0 && tells) arrive_in(queue.empty + 8 * before, peer);
    before = turn.slot;
    turn.next();
  }
  wait_products<0>();
  wide::settle(sum);
  if (tells) arrive_in(queue.empty + 8 * before, peer);
}

template <class F, class End>
__global__ __launch_bounds__(F::kThreads,
                             1) void product_kernel(const __grid_constant__ CUtensorMap weight_map,
                                                    const __grid_constant__ CUtensorMap row_map,
                                                    const __grid_constant__ Work work,
                                                    const __grid_constant__ End end) {
  using S = Sizes<F, End>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const Queue<F, End> queue(shared_address(memory));
  const Member<F> me(blockIdx.x);
  const int first = static_cast<int>(blockIdx.x) / F::kBlocks;
  const int step = static_cast<int>(gridDim.x) / F::kBlocks;
  const int chunks = (work.inputs + kChunk - 1) / kChunk;
  // The same for all lanes, and known to be by the compiler.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const auto outputs_of = [&](int tile) { return tile / work.row_tiles * F::kAcross + me.across; };
  const auto rows_of = [&](int tile) {
    return (tile % work.row_tiles * F::kAlong + me.along) * F::kRows;
  };
  if (warp == 4 * F::kGroups && threadIdx.x % 32 == 0) {
    wide::prefetch_map(&weight_map);
    wide::prefetch_map(&row_map);
    queue.init();
  }
  if constexpr (F::kBlocks == 1) {
    __syncthreads();
  } else {
    wide::cluster_meet<false>();
  }
  if (warp == 4 * F::kGroups) {
    bring_weights<F>(&weight_map, queue, end, work, me, first, step, chunks);
    grid_launch_next();
  } else if (warp == 4 * F::kGroups + 1) {
    grid_wait();
    bring_rows<F>(&row_map, queue, work, me, first, step, chunks);
  } else {
    float sum[F::kRows / 2];
    Turn<S::kStages> turn;
    grid_wait();
    for (int tile = first; tile < work.tiles; tile += step) {
      const int rows = rows_of(tile), limit = min(work.rows, rows + F::kRows);
      Finish<F, End> finish(end, outputs_of(tile), rows, limit);
      multiply_tile(queue, me, turn, warp, chunks, sum);
      if (outputs_of(tile) < end.tiles()) {  // or other blocks of the cluster alone have outputs
        finish.write(end, queue.pieces(), sum);
      }
      if (S::kPiecesBytes != 0 && tile + step < work.tiles) {
        meet_readers<F::kReaders>();  // both places of pieces are free
      }
    }
  }
  __syncwarp();
  if constexpr (F::kBlocks > 1) wide::cluster_meet<false>();  // others may still reach this block
}

}  // namespace higgs_rt::prompt
