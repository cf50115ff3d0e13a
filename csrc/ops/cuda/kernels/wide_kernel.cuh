// The wide product (sm_90a). A warp brings boxes of weights, another one boxes of rows, each into a
// queue in shared memory of its own: weights come from memory and fill a long one, rows come from
// the L2 cache. Groups of four warps multiply, 64 outputs each. The first weights are asked
// for before the kernels ahead have finished, and the next kernel may start once the last ones are,
// or at once. Blocks of a cluster split the inputs; each then ends a share of the rows. One more
// warp finds the factors of the norm ahead meanwhile (WideFactors).
//
// Where a block begins or ends nothing streams, so what is done there is short: chains of dependent
// instructions, and constants that come line by line, cost microseconds (docs/performance.md).
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/wide_ends.cuh"

namespace higgs_rt::wide {

// Four warps: the sums of 64 outputs.
template <int kRows>
__device__ inline void multiply_all(int chunks, const WeightQueue<kRows>& weights,
                                    const RowQueue<kRows>& rows, int group,
                                    float (&sum)[kRows / 2]) {
  const bool speaks = threadIdx.x % 32 == 0;
  Place weight, row, weight_before, row_before;
  for (int n = 0; n < chunks; ++n) {
    wait_barrier(weights.full(weight.slot), weight.parity);
    wait_barrier(rows.full(row.slot), row.parity);
    const std::uint64_t a = tile_at(weights.stage(weight.slot) + group * kGroupOutputs * kRowBytes);
    const std::uint64_t b = tile_at(rows.stage(row.slot));
    begin_products();
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
      multiply(sum, a + 2 * k, b + 2 * k);
    }
    end_products();
    wait_products<1>();
    if (n != 0 && speaks) {
      arrive_barrier(weights.empty(weight_before.slot));
      arrive_barrier(rows.empty(row_before.slot));
    }
    weight_before = weight, row_before = row;
    weight.next<WeightQueue<kRows>::kStages>(), row.next<RowQueue<kRows>::kStages>();
  }
  wait_products<0>();
  settle(sum);
}

// What a block has in shared memory beside its queues.
template <int kRows>
struct Beside {
  typename WeightQueue<kRows>::Barriers weights;
  typename RowQueue<kRows>::Barriers rows;
  Barrier room, inbox;
  float factors[kWideMaxRows];
};

// Warps of the block that do not multiply.
enum Helper { kWeights, kRowBoxes, kFactors };

template <int kRows, WideEnd kEnd>
__global__ __launch_bounds__(kThreads,
                             1) void wide_kernel(const __grid_constant__ Work work,
                                                 const __grid_constant__ CUtensorMap weight_map,
                                                 const __grid_constant__ CUtensorMap row_map) {
  using S = Sizes<kRows>;
  static_assert(sizeof(Beside<kRows>) <= S::kBesideBytes && S::kBesideBytes % 1024 == 0);
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& beside = *reinterpret_cast<Beside<kRows>*>(memory);
  const std::uint32_t begin = shared_address(memory) + S::kBesideBytes;
  const WeightQueue<kRows> weights{begin, shared_address(&beside.weights)};
  const RowQueue<kRows> rows{begin + WeightQueue<kRows>::kBytes, shared_address(&beside.rows)};
  // The same for all lanes, and known to be by the compiler.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int helper = warp - kWarps;
  const bool speaks = threadIdx.x % 32 == 0;
  const Share share = share_of(work);
  const Halves halves = halves_of<kEnd>(work, share.tile);
  const int chunks = share.end - share.begin;
  const WeightSource weight_source{&weight_map, halves};
  const RowSource<kRows> row_source{&row_map};
  const Feed<WeightQueue<kRows>, WeightSource, S::kWeightsUnderWay> weight_feed{
      weights, weight_source, share.begin, chunks};
  const Feed<RowQueue<kRows>, RowSource<kRows>, S::kRowStages> row_feed{rows, row_source,
                                                                        share.begin, chunks};
  const Inbox<WeightQueue<kRows>> inbox{work, share, weights, shared_address(&beside.room),
                                        shared_address(&beside.inbox)};
  const bool split = work.parts > 1;
  if (helper == kWeights) {
    if (speaks) weights.template begin<S::kWeightsUnderWay>();
    __syncwarp();
    weight_feed.start();
    if (speaks) weights.template init<S::kWeightsUnderWay>(kWarps);
  } else if (helper == kRowBoxes && speaks) {
    prefetch_map(&row_map);
    rows.template init<0>(kWarps);
  } else if (helper == kFactors && speaks) {
    if (split) inbox.init();
  }
  __syncthreads();
  if (split) arrive_cluster();
  Ending<kRows, kEnd> ending(work, share, halves);
  // (Every warp waits for the cluster before it waits for other warps: docs/gpu.md, "Racecheck".)
  if (helper == kWeights) {
    if (work.at_once) grid_launch_next();
    if (split) wait_cluster();
    weight_feed.go_on();
    grid_launch_next();
    if (!split) return;
    weight_feed.give_up(inbox.stages());
    if (speaks) inbox.open();
  } else if (helper == kRowBoxes) {
    if (split) wait_cluster();
    grid_wait();
    row_feed.start();
    row_feed.go_on();
  } else if (helper == kFactors) {
    if (split) wait_cluster();
    grid_wait();
    ending.find_factors(beside.factors);
    arrive_warps<kEnded, kMultiplying + 32>();
  } else {
    float sum[kRows / 2] = {};
    Addresses<kRows / 8> addresses{};
    if (split) addresses = inbox.template addresses<kRows / 8>();
    if (split) wait_cluster();
    grid_wait();
    ending.prepare();
    multiply_all<kRows>(chunks, weights, rows, warp / 4, sum);
    if (split) inbox.send(addresses, sum);
    ending.prepare_late();
    if (split) wait_barrier_of_cluster(inbox.full, 0);
    ending.finish(inbox, rows.memory, sum, beside.factors);
  }
}

}  // namespace higgs_rt::wide
