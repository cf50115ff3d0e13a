// Who brings the weights and rows of a product of prompt rows (sm_90a): every box comes out of the
// L2 cache once for all blocks of the cluster that need it, each of which brings its share to all
// of them. Where steps are short, what the asking warp does for a step bounds the product. So a
// whole warp walks and one lane of it asks, within one piece of assembly: with a branch of one lane
// around it each copy would become a loop over lanes, its operands brought over one by one.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/prompt_form.cuh"

namespace higgs_rt::prompt {

using wide::expect_by_one;
template <bool kShared>
__device__ inline void copy_by_one(std::uint32_t to, const CUtensorMap* map, int column, int row,
                                   std::uint32_t barrier, std::uint16_t blocks,
                                   std::uint64_t policy) {
  if constexpr (kShared) {
    asm volatile(
        "{ .reg .pred p; elect.sync _|p, 0xffffffff; "
        "@p cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
        "multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6; }" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks), "l"(policy)
        : "memory");
  } else {
    wide::copy_by_one(to, map, column, row, barrier, policy);
  }
}
__device__ inline void arrive_in(std::uint32_t barrier, unsigned rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(wide::in_block(barrier, rank))
               : "memory");
}

// All boxes of weights of this block's tiles; one warp.
template <class F, class End>
__device__ inline void bring_weights(const CUtensorMap* map, const Queue<F, End>& queue,
                                     const End& end, const Work& work, const Member<F>& me,
                                     int first, int step, int chunks) {
  constexpr int kStages = Sizes<F, End>::kStages;
  const std::uint64_t policy = wide::once_policy();
  const std::uint16_t blocks = me.same_outputs();
  int slot = 0;
  unsigned parity = 1;  // of a phase before the first: all stages are free
  for (int tile = first; tile < work.tiles; tile += step) {
    const int outputs = tile / work.row_tiles * F::kAcross + me.across;
    int row[F::kOwnBoxes];
#pragma unroll
    for (int i = 0; i < F::kOwnBoxes; ++i) {
      row[i] = end.weight_row(outputs, (me.along + i * F::kAlong) * F::kWeightBox);
    }
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const std::uint32_t full = queue.full + 8 * slot;
      wait_barrier(queue.empty + 8 * slot, parity);
      expect_by_one(full, F::kStageBytes);
      const std::uint32_t to = queue.stage(slot);
#pragma unroll
      for (int i = 0; i < F::kOwnBoxes; ++i) {
        const int box = me.along + i * F::kAlong;
        copy_by_one<(F::kAlong > 1)>(to + box * F::kWeightBox * kRowBytes, map, chunk * kChunk,
                                     row[i], full, blocks, policy);
      }
      if (++slot == kStages) slot = 0, parity ^= 1;
    }
  }
}

template <class F, class End>
__device__ inline void bring_rows(const CUtensorMap* map, const Queue<F, End>& queue,
                                  const Work& work, const Member<F>& me, int first, int step,
                                  int chunks) {
  constexpr int kStages = Sizes<F, End>::kStages;
  const std::uint16_t blocks = me.same_rows();
  const std::uint64_t policy = wide::often_policy();
  int slot = 0;
  unsigned parity = 1;  // of a phase before the first: all stages are free
  for (int tile = first; tile < work.tiles; tile += step) {
    const int row = (tile % work.row_tiles * F::kAlong + me.along) * F::kRows;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      wait_barrier(queue.empty + 8 * slot, parity);
      const std::uint32_t to = queue.stage(slot) + F::kWeightBytes, full = queue.full + 8 * slot;
#pragma unroll
      for (int i = 0; i < F::kRowBoxes; i += F::kAcross) {
        const int from = (i + me.across) * F::kRowBox;
        if (F::kRowBoxes % F::kAcross == 0 || from < F::kRows) {
          copy_by_one<(F::kAcross > 1)>(to + from * kRowBytes, map, chunk * kChunk, row + from,
                                        full, blocks, policy);
        }
      }
      if (++slot == kStages) slot = 0, parity ^= 1;
    }
  }
}

}  // namespace higgs_rt::prompt
