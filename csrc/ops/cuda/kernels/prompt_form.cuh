// The sizes of a product of prompt rows (sm_90a), who is who in a cluster, and its queue.
#pragma once

#include "ops/cuda/kernels/wide_parts.cuh"

namespace higgs_rt::prompt {

constexpr int kChunk = 64;      // inputs of a stage
constexpr int kRowBytes = 128;  // of a row's chunk
constexpr int kMemory = 227 << 10;
constexpr int kMostStages = 16;

// Rows of a box, so that each of `blocks` blocks has one to bring.
constexpr int box_rows(int rows, int blocks) {
  int box = rows / blocks;
  while (box % 8 != 0 || rows % box != 0) --box;
  return box;
}

// A block has a tile of kOutputs outputs, shared out among kGroups groups of four warps, and of
// kRows rows. Products are of 64 outputs for a group: where it has fewer, the others are computed
// from what lies behind its weights and thrown away. A cluster is kAcross blocks of different
// outputs times kAlong blocks of different rows.
template <int kRows_, int kGroups_, int kAcross_, int kAlong_, int kOutputs_ = 64 * kGroups_>
struct Form {
  static constexpr int kRows = kRows_, kGroups = kGroups_, kAcross = kAcross_, kAlong = kAlong_;
  static constexpr int kBlocks = kAcross * kAlong;  // of a cluster
  static constexpr int kPeers =
      kAcross + kAlong - 1;  // blocks that share boxes with one, itself too
  // Products of a step of 16 inputs, of kEach rows: wgmma takes 256 at most.
  static constexpr int kProducts = kRows <= 256 ? 1 : 2, kEach = kRows / kProducts;
  static constexpr int kOutputs = kOutputs_, kReaders = 128 * kGroups;
  static constexpr int kGroupOutputs = kOutputs / kGroups;
  static constexpr int kThreads = kReaders + 64;
  static constexpr int kWeightBytes = kOutputs * kRowBytes, kRowsBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kRowsBytes;
  // Boxes of weights are dealt among the blocks of the same outputs, those of rows among the
  // others.
  static constexpr int kWeightBox = kOutputs / 2, kOwnBoxes = 2 / kAlong;
  static constexpr int kRowBox = box_rows(kRows, kAcross), kRowBoxes = kRows / kRowBox;
  static_assert(kRowBox % 8 == 0 && kWeightBox % 8 == 0 && kGroupOutputs % 8 == 0,
                "boxes are whole swizzled tiles");
  static_assert(kAlong <= 2 && kGroups * kGroupOutputs == kOutputs);
  static_assert((kGroups - 1) * kGroupOutputs + 64 <= kOutputs + kRows,
                "a product reads within its stage");
  static_assert(kRowBox <= 256 && kEach % 8 == 0, "the copy engine's and wgmma's sizes");
};

template <class F, class End>
struct Sizes {
  static constexpr int kPiecesBytes = 2 * End::Pieces::kBytes;
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

// Addresses in shared memory.
template <class F, class End>
struct Queue {
  using S = Sizes<F, End>;
  std::uint32_t memory, full, empty;

  __device__ explicit Queue(std::uint32_t memory)
      : memory(memory),
        full(memory + S::kStages * F::kStageBytes + S::kPiecesBytes),
        empty(full + 8 * S::kStages) {}
  __device__ std::uint32_t stage(int slot) const { return memory + slot * F::kStageBytes; }
  __device__ std::uint32_t pieces() const { return memory + S::kStages * F::kStageBytes; }
  __device__ void init() const {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(full + 8 * i, 1);
      init_barrier(empty + 8 * i, 4 * F::kGroups * F::kPeers);
    }
    publish_barriers();
    fence_async_proxy();
  }
};

}  // namespace higgs_rt::prompt
