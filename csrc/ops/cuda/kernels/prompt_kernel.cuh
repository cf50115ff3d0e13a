// The product of prompt rows (sm_90a). A block has a tile of 64 outputs for each of its groups of
// four warps and of kRows rows. A cluster is kAcross blocks of different outputs times kAlong
// blocks of different rows: every box of weights or rows comes out of the L2 cache once for all
// blocks of the cluster that need it, each of which brings its share to all of them. One warp asks
// for weights, from before the kernels ahead have finished, another one for rows.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/prompt_outputs.cuh"
#include "ops/cuda/kernels/prompt_wgmma.cuh"
#include "ops/cuda/kernels/wide_parts.cuh"

namespace higgs_rt::prompt {

constexpr int kChunk = 64;      // inputs of a stage
constexpr int kRowBytes = 128;  // of a row's chunk
constexpr int kMemory = 227 << 10;
constexpr int kMostStages = 12;

template <int kRows_, int kGroups_, int kAcross_, int kAlong_>
struct Form {
  static constexpr int kRows = kRows_, kGroups = kGroups_, kAcross = kAcross_, kAlong = kAlong_;
  static constexpr int kBlocks = kAcross * kAlong;  // of a cluster
  static constexpr int kPeers =
      kAcross + kAlong - 1;  // blocks that share boxes with one, itself too
  // Products of a step of 16 inputs, of kEach rows: wgmma takes 256 at most.
  static constexpr int kProducts = kRows <= 256 ? 1 : 2, kEach = kRows / kProducts;
  static constexpr int kOutputs = 64 * kGroups, kReaders = 128 * kGroups;
  static constexpr int kThreads = kReaders + 64;
  static constexpr int kWeightBytes = kOutputs * kRowBytes, kRowsBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kRowsBytes;
  // Boxes: half a tile of weights or a block's share of that, a block's share of the rows.
  static constexpr int kWeightBox = kAlong <= 2 ? kOutputs / 2 : kOutputs / kAlong;
  static constexpr int kRowBox = kRows / kAcross;
  static_assert(kRowBox % 8 == 0 && kWeightBox % 8 == 0, "boxes are whole swizzled tiles");
  static_assert(kRowBox <= 256 && kEach % 8 == 0, "the copy engine's and wgmma's sizes");
};

template <class F, class Pieces>
struct Sizes {
  static constexpr int kPiecesBytes = 2 * Pieces::kBytes;
  static constexpr int kMost = (kMemory - kPiecesBytes - 256) / F::kStageBytes;
  static constexpr int kStages = kMost < kMostStages ? kMost : kMostStages;
  static constexpr int kBytes = kStages * F::kStageBytes + kPiecesBytes + 2 * 8 * kStages;
};

struct Work {
  int rows, inputs;
  int row_tiles;  // of a cluster's rows
  int tiles;      // of all clusters
};

// Which blocks of the cluster this one is.
template <class F>
struct Member {
  int across, along;
  __device__ explicit Member(unsigned block)
      : across(static_cast<int>(block) % F::kBlocks % F::kAcross),
        along(static_cast<int>(block) % F::kBlocks / F::kAcross) {}
  __device__ unsigned rank_of(int a, int b) const {
    return static_cast<unsigned>(b * F::kAcross + a);
  }
  // Those of the same outputs, and those of the same rows.
  __device__ std::uint16_t same_outputs() const {
    unsigned mask = 0;
#pragma unroll
    for (int b = 0; b < F::kAlong; ++b) mask |= 1u << rank_of(across, b);
    return static_cast<std::uint16_t>(mask);
  }
  __device__ std::uint16_t same_rows() const {
    return static_cast<std::uint16_t>(((1u << F::kAcross) - 1) << (along * F::kAcross));
  }
  // Peer i of kPeers.
  __device__ unsigned peer(int i) const {
    return i < F::kAcross ? rank_of(i, along)
                          : rank_of(across, (along + 1 + i - F::kAcross) % F::kAlong);
  }
};

template <int kStages>
struct Turn {
  int slot = 0;
  unsigned parity = 0;
  __device__ void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

template <bool kShared>
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap* map, int column, int row,
                                Barrier* barrier, std::uint16_t blocks, std::uint64_t policy) {
  if constexpr (kShared) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
        "multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"(blocks), "l"(policy)
        : "memory");
  } else {
    wide::copy_box(to, map, column, row, barrier, policy);
  }
}
__device__ inline void arrive_in(Barrier* barrier, unsigned rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(
                   wide::in_block(shared_address(barrier), rank))
               : "memory");
}
template <int kReaders>
__device__ inline void meet_readers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kReaders) : "memory");
}

template <class F, class End>
struct Queue {
  using S = Sizes<F, typename End::Pieces>;
  std::uint32_t memory;
  Barrier *full, *empty;

  __device__ std::uint32_t stage(int slot) const { return memory + slot * F::kStageBytes; }
  __device__ void init() const {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(full + i, 1);
      init_barrier(empty + i, 4 * F::kGroups * F::kPeers);
    }
    publish_barriers();
    fence_async_proxy();
  }
};

// All boxes of weights of this block's tiles; one thread.
template <class F, class End>
__device__ inline void bring_weights(const CUtensorMap* map, const Queue<F, End>& queue,
                                     const End& end, const Work& work, const Member<F>& me,
                                     int first, int step, int chunks) {
  constexpr int kStages = Sizes<F, typename End::Pieces>::kStages;
  const std::uint16_t blocks = me.same_outputs();
  const std::uint64_t policy = wide::once_policy();
  Turn<kStages> turn;
  bool filled = false;
  for (int tile = first; tile < work.tiles; tile += step) {
    const Halves from = end.halves(tile / work.row_tiles * F::kAcross + me.across);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      Barrier* full = queue.full + turn.slot;
      if (filled) wait_barrier(queue.empty + turn.slot, turn.parity ^ 1);
      expect_bytes(full, F::kStageBytes);
      const std::uint32_t to = queue.stage(turn.slot);
      if constexpr (F::kAlong == 1) {
        wide::copy_box(to, map, chunk * kChunk, from.low, full, policy);
        wide::copy_box(to + F::kWeightBytes / 2, map, chunk * kChunk, from.high, full, policy);
      } else {
        constexpr int kEach = F::kAlong / 2;  // boxes of a half
        const int row = me.along % kEach * F::kWeightBox;
        copy_box<true>(to + me.along * F::kWeightBox * kRowBytes, map, chunk * kChunk,
                       (me.along < kEach ? from.low : from.high) + row, full, blocks, policy);
      }
      turn.next();
      if (turn.slot == 0) filled = true;
    }
  }
}

template <class F, class End>
__device__ inline void bring_rows(const CUtensorMap* map, const Queue<F, End>& queue,
                                  const Work& work, const Member<F>& me, int first, int step,
                                  int chunks) {
  constexpr int kStages = Sizes<F, typename End::Pieces>::kStages;
  const std::uint16_t blocks = me.same_rows();
  const std::uint64_t policy = wide::often_policy();
  const int share = me.across * F::kRowBox;
  Turn<kStages> turn;
  bool filled = false;
  for (int tile = first; tile < work.tiles; tile += step) {
    const int row = (tile % work.row_tiles * F::kAlong + me.along) * F::kRows + share;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      if (filled) wait_barrier(queue.empty + turn.slot, turn.parity ^ 1);
      copy_box<(F::kAcross > 1)>(queue.stage(turn.slot) + F::kWeightBytes + share * kRowBytes, map,
                                 chunk * kChunk, row, queue.full + turn.slot, blocks, policy);
      turn.next();
      if (turn.slot == 0) filled = true;
    }
  }
}

// Four warps: the sums of 64 outputs of a tile.
template <class F, class End, class Place>
__device__ inline void multiply_tile(const Queue<F, End>& queue, const Member<F>& me, Place& turn,
                                     int chunks, float (&sum)[F::kRows / 2]) {
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const bool tells = lane < F::kPeers;
  const unsigned peer = tells ? me.peer(lane) : 0;
#pragma unroll
  for (float& s : sum) s = 0.0f;
  int before = -1;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    wait_barrier(queue.full + turn.slot, turn.parity);
    const std::uint32_t stage = queue.stage(turn.slot);
    const std::uint64_t a = wide::tile_at(stage + group * 64 * kRowBytes);
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
    if (before >= 0 && tells) arrive_in(queue.empty + before, peer);
    before = turn.slot;
    turn.next();
  }
  wait_products<0>();
  wide::settle(sum);
  if (tells) arrive_in(queue.empty + before, peer);
}

template <class F, class End>
__device__ inline void end_tile(std::uint32_t memory, const End& end, int outputs, int first,
                                int rows, const float (&sum)[F::kRows / 2]) {
  using P = typename End::Pieces;
  constexpr int kPieces = (F::kRows + P::kRows - 1) / P::kRows;
  if (outputs >= end.tiles()) return;  // other blocks of the cluster alone have outputs
  const int limit = min(rows, first + F::kRows);
  constexpr bool kEarly = F::kRows <= 208;  // longer tiles leave no registers for it
  typename End::Ahead ahead{};
  if constexpr (kEarly) ahead = end.ahead(outputs, first, limit);
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::uint32_t place = memory + piece % 2 * P::kBytes;
    P::lay_down(place, piece, sum);
    meet_readers<F::kReaders>();
    const int row = first + piece * P::kRows;
    const typename End::Ahead now = kEarly ? ahead : end.ahead(outputs, row, limit);
    if (kEarly && piece + 1 < kPieces) ahead = end.ahead(outputs, row + P::kRows, limit);
    end.write(place, outputs, row, limit, now);
  }
}

template <class F, class End>
__global__ __launch_bounds__(F::kThreads,
                             1) void product_kernel(const __grid_constant__ CUtensorMap weight_map,
                                                    const __grid_constant__ CUtensorMap row_map,
                                                    const __grid_constant__ Work work,
                                                    const __grid_constant__ End end) {
  using S = Sizes<F, typename End::Pieces>;
  extern __shared__ __align__(1024) unsigned char memory[];
  constexpr int kQueueBytes = S::kStages * F::kStageBytes;
  auto* barriers = reinterpret_cast<Barrier*>(memory + kQueueBytes + S::kPiecesBytes);
  const Queue<F, End> queue{shared_address(memory), barriers, barriers + S::kStages};
  const Member<F> me(blockIdx.x);
  const int first = static_cast<int>(blockIdx.x) / F::kBlocks;
  const int step = static_cast<int>(gridDim.x) / F::kBlocks;
  const int chunks = (work.inputs + kChunk - 1) / kChunk;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const bool speaks = threadIdx.x % 32 == 0;
  if (warp == 4 * F::kGroups && speaks) {
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
    if (speaks) {
      bring_weights<F>(&weight_map, queue, end, work, me, first, step, chunks);
      grid_launch_next();
    }
  } else if (warp == 4 * F::kGroups + 1) {
    grid_wait();
    if (speaks) bring_rows<F>(&row_map, queue, work, me, first, step, chunks);
  } else {
    float sum[F::kRows / 2];
    Turn<S::kStages> turn;
    for (int tile = first; tile < work.tiles; tile += step) {
      multiply_tile(queue, me, turn, chunks, sum);
      if (tile == first) grid_wait();
      end_tile<F>(queue.memory + kQueueBytes, end, tile / work.row_tiles * F::kAcross + me.across,
                  (tile % work.row_tiles * F::kAlong + me.along) * F::kRows, work.rows, sum);
      meet_readers<F::kReaders>();  // both places of pieces are free
    }
  }
  __syncwarp();
  if constexpr (F::kBlocks > 1) wide::cluster_meet<false>();  // others may still reach this block
}

}  // namespace higgs_rt::prompt
