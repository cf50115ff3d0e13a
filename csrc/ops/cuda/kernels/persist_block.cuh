// What a block of the persistent kernel is and has.
#pragma once

#include "ops/cuda/kernels/persist_inputs.cuh"

namespace higgs_rt::persist {

using stream::Arrival;

// Sums of so many tiles are joined at a time, a warp writes the results of each.
constexpr int kTogether = 4;
// Of so many tiles sums may be on their way to a block (send_group()).
constexpr int kInboxes = 2 * kTogether;

constexpr unsigned kAll = 0xffffffffu;
constexpr int kOwnTiles = kParts / kClusters;  // of the residual stream of a cluster
static_assert(kParts % kClusters == 0);
constexpr int kNorms = 2 * kPersistLayers + 1;
constexpr int kThreads = stream::kThreads;
constexpr int kTilePositions = 16;  // of a warp's tile of the cache

// Shared memory, in bytes.
struct Places {
  static constexpr int kSumFloats = kWarps * kRows * kSumPitch;
  static constexpr int kAttentionBytes = 4 * kWarps * kGroup * (Shape::kDim + 2);  // of a piece
  static constexpr int kSums = kHalves * kHalfBytes;  // of kTogether tiles; or attention's
  static constexpr int kSumsBytes =
      4 * kTogether * kSumFloats > kAttentionBytes ? 4 * kTogether * kSumFloats : kAttentionBytes;
  static constexpr int kInbox = kSums + kSumsBytes;
  // fp32 [kOwnTiles][kRows / 2][16]
  static constexpr int kResidual = kInbox + kInboxes * kRows * 64;
  static constexpr int kScale = kResidual + kOwnTiles * kRows / 2 * 64;  // fp32 [kRows]
  static constexpr int kArrivals = kScale + 4 * kRows;
  static constexpr int kFull = kArrivals + 8 * kInboxes;
  static constexpr int kScaled = kFull + 8 * Ring::kBarriers;
  static constexpr int kApplied = kScaled + 8;
  static constexpr int kUnit = kApplied + 8;
  static constexpr int kNormPlace = kUnit + 40;  // bf16 [kNorms][kOwnTiles][16]
  static constexpr int kBytes = kNormPlace + kNorms * kOwnTiles * 32;
  static_assert(kInbox % 16 == 0 && kResidual % 16 == 0);
  static_assert(kArrivals % 8 == 0 && kUnit % 8 == 0);
};

// All warps that multiply.
__device__ inline void sync_warps() { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); }

// What a block is and has.
struct Block {
  const PersistStep& step;
  Mail mail;
  float *sums, *inbox, *residual, *scale;
  unsigned char* unit;   // the block's share of attention (persist_tiles.cuh)
  unsigned char* norms;  // of the residual stream's tiles: input and post attention norms, in order
  Arrival* arrivals;
  std::uint32_t scaled;   // barrier of the warps that write `scale`
  std::uint32_t applied;  // barrier of the threads that read it
  unsigned rank;
  int cluster, rows, sum_bytes;
  float4 turn = {};       // cos, sin of this lane's two pairs of a head, in its row of results
  unsigned sent = 0;      // tiles
  std::uint32_t tag = 0;  // of this launch's first layer (Parts)

  static constexpr int kShare = kRows / kCluster;  // rows whose results this block writes
  static constexpr int kSumFloats = kWarps * kRows * kSumPitch;

  __device__ void mark(int layer, int point) const {
    if (step.stamps == nullptr || threadIdx.x != 0 || layer >= step.num_layers) return;
    step.stamps[(std::int64_t{blockIdx.x} * step.num_layers + layer) * kDecodeStamps + point] =
        clock64();
  }
};

// A lane of the warp that writes a tile's results has numbers 2 j, 2 j + 1 and 8 more of both of a
// row's outputs.
struct Place {
  int local, j, row;
  bool active;
  __device__ explicit Place(const Block& block)
      : local(static_cast<int>(threadIdx.x) % 32 / 4),
        j(static_cast<int>(threadIdx.x) % 4),
        row(static_cast<int>(block.rank) * Block::kShare + local),
        active(local < Block::kShare && row < block.rows) {}
};

__device__ inline float low_half(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

}  // namespace higgs_rt::persist
