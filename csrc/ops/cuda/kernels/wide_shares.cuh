// Sizes of a wide product, and which part of it a block has.
#pragma once

#include "ops/cuda/kernels/wide_linear.h"

namespace higgs_rt::wide {

constexpr int kChunk = 64;  // inputs of a stage: 128 bytes of each row
constexpr int kRowBytes = 128;
constexpr int kGroups = 2;                         // of four warps
constexpr int kGroupOutputs = 64;                  // of a group
constexpr int kOutputs = kGroups * kGroupOutputs;  // of a block
constexpr int kWarps = kGroups * 4;                // that multiply
constexpr int kMultiplying = kWarps * 32;          // threads
constexpr int kThreads = kMultiplying + 3 * 32;    // two warps fill the queues, one finds factors
constexpr int kMaxParts = 8;

// What a block needs for its first weights comes first: constants are read line by line.
struct Work {
  int parts;
  int upper;       // from the lower half of a tile to the upper one, rows of the weight
  int head_tiles;  // kQkv: tiles of a head
  short chunks[kMaxParts + 1];  // part p multiplies the chunks of the inputs from [p] to [p + 1]
  short eights[kMaxParts + 1];  // part p ends the rows of the eights from [p] to [p + 1]
  short open_stage[kMaxParts];  // stage behind the last chunk's, from which on sums come in
  int rows, outputs;
  bool at_once;  // lets the next kernel in at its begin, not with its last weights
  WideFactors factors;
  WideOutput to;
};

template <int kRows>
struct Sizes {
  static constexpr int kWeightBytes = kOutputs * kRowBytes;  // of a stage
  static constexpr int kRowsBytes = kRows * kRowBytes;       // of a stage
  // Stages of weights on their way at a time: rows, and what the end of a product reads, come
  // behind them (docs/performance.md).
  static constexpr int kWeightsUnderWay = kRows <= 16 ? 6 : 4;
  // Stages of the queues.
  static constexpr int kWeightStages = kRows <= 32 ? 12 : kRows <= 64 ? 11 : kRows <= 96 ? 10 : 9;
  static constexpr int kRowStages = kRows <= 16 ? 12 : kRows <= 48 ? 8 : kRows <= 80 ? 6 : 5;
  // Sums in shared memory are [rows, kStride]: lanes of a warp write to different banks. They take
  // the memory of the queue of rows.
  static constexpr int kStride = kOutputs + 4;
  static_assert(kRows * kStride * 4 <= kRowStages * kRowsBytes);
  // Of a block, from the beginning: what is Beside the queues, then they.
  static constexpr int kBesideBytes = 2048;
  static constexpr int kSharedBytes =
      kBesideBytes + kWeightStages * kWeightBytes + kRowStages * kRowsBytes;
  static_assert(kSharedBytes <= 227 * 1024);
};

// This block's part of the work. A cluster has a tile, of which each block has a part: grid
// (parts, tiles).
struct Share {
  int tile, part;
  int begin, end;  // chunks of the inputs
};
__device__ inline Share share_of(const Work& work) {
  const int part = static_cast<int>(blockIdx.x);
  return {static_cast<int>(blockIdx.y), part, work.chunks[part], work.chunks[part + 1]};
}

}  // namespace higgs_rt::wide
