// Sizes of a wide product, and which part of it a block has.
#pragma once

#include "ops/cuda/kernels/wide_linear.h"

namespace higgs_rt::wide {

constexpr int kMaxStages = 16;  // of a queue
// Stages of weights on their way at a time: rows, and what the end of a product reads, come behind
// them (docs/performance.md).
constexpr int kWeightsUnderWay = 4;
constexpr int kChunk = 64;  // inputs of a stage: 128 bytes of each row
constexpr int kRowBytes = 128;
constexpr int kGroups = 2;                         // of four warps
constexpr int kGroupOutputs = 64;                  // of a group
constexpr int kOutputs = kGroups * kGroupOutputs;  // of a block
constexpr int kWarps = kGroups * 4;                // that multiply
constexpr int kThreads = (kWarps + 3) * 32;        // two more fill the queues, one finds factors

struct Work {
  WideOutput to;
  WideFactors factors;
  int rows, outputs, inputs;
  int parts, weight_stages, row_stages;
};

template <int kRows>
struct Sizes {
  static constexpr int kWeightBytes = kOutputs * kRowBytes;  // of a stage
  static constexpr int kRowsBytes = kRows * kRowBytes;       // of a stage
  // Sums in shared memory are [rows, kStride]: lanes of a warp write to different banks.
  static constexpr int kStride = kOutputs + 4;
  static constexpr int kSumBytes = kRows * kStride * 4;

  static constexpr __host__ __device__ int queue_bytes(int weight_stages, int row_stages) {
    return weight_stages * kWeightBytes + row_stages * kRowsBytes;
  }
  // Of a block: the queues, whose memory the sums take at the end, then the barriers, then a factor
  // of each row.
  static constexpr int shared_bytes(int weight_stages, int row_stages) {
    return queue_bytes(weight_stages, row_stages) + 4 * kMaxStages * 8 + kWideMaxRows * 4;
  }
};

// This block's part of the work.
struct Share {
  int tile, part;
  int begin, end;  // chunks of the inputs
};
__device__ inline Share share_of(const Work& work) {
  const int chunks = (work.inputs + kChunk - 1) / kChunk;
  Share s;
  s.tile = static_cast<int>(blockIdx.x) / work.parts;
  s.part = static_cast<int>(blockIdx.x) % work.parts;
  s.begin = chunks * s.part / work.parts, s.end = chunks * (s.part + 1) / work.parts;
  return s;
}

}  // namespace higgs_rt::wide
