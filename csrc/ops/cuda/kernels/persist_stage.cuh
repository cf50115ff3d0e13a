// A stage of the persistent kernel: a matrix product.
#pragma once

#include "ops/cuda/kernels/persist_results.cuh"

namespace higgs_rt::persist {

__device__ inline int input_cells(int kind) {
  return kind == kO        ? kAttendedCells
         : kind == kGateUp ? kFfnCells
         : kind == kDown   ? kActivatedCells
                           : kInputCells;
}

// Joins the warps' sums of `count` tiles, the first one number `first` of the block, and sends each
// row's to the block that writes its results (send_sums() of stream_kernel.cuh). A block sends a
// group when it has received the one before from both, who had then read the one before that, the
// last one in the same inboxes.
__device__ inline void send_group(const Block& block, unsigned first, int count) {
  constexpr int kPacks = stream::kTile / 4, kShare = Block::kShare;
  for (int e = static_cast<int>(threadIdx.x); e < count * kRows * kPacks; e += kThreads) {
    const int n = e / kPacks % kRows, o = e % kPacks * 4, owner = n / kShare;
    if (n >= block.rows && (n % kShare != 0 || o != 0)) continue;
    const unsigned index = first + static_cast<unsigned>(e / (kRows * kPacks));
    const float* at = block.sums + index % kTogether * Block::kSumFloats + sum_place(n, o);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int r = 0; r < kWarps; ++r) {
      const float4 one = *reinterpret_cast<const float4*>(at + r * kRows * kSumPitch);
      sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
    }
    float* place = block.inbox + index % kInboxes * kRows * 16 +
                   (static_cast<int>(block.rank) * kShare + n - owner * kShare) * 16 + o;
    stream::send(reinterpret_cast<float4*>(place), block.arrivals + index % kInboxes,
                 static_cast<unsigned>(owner), sum);
  }
}

// Joins the sums of the tiles [own + 1 - count, own] of a stage, when they are a group, and writes
// the results of the `late` tiles before them, behind the stage's last tile its own too.
__device__ inline void end_tile(const Block& block, int kind, int layer, int own, int count,
                                int late, bool whole, bool last) {
  const int warp = static_cast<int>(threadIdx.x) / 32, begin = own + 1 - count;
  // One place for the code.
#pragma unroll 1
  for (int now = late > 0 ? 0 : 1; now < (last ? 3 : 2); ++now) {
    if (now == 1) {
      if (!whole) continue;
      sync_warps();
      send_group(block, block.sent - static_cast<unsigned>(count), count);
      sync_warps();  // the sums have been read
      continue;
    }
    const int from = now == 0 ? begin - late : begin, to = now == 0 ? begin : own + 1;
    const int tile = from + ((warp - from) & (kWarps - 1));
    if (tile >= to) continue;
    put_results(block, block.sent - static_cast<unsigned>(own + 1 - tile), kind, layer, tile);
  }
}

// A product of up to kC chunks. One code for all of these: with one for each product the kernel was
// larger than the instruction caches.
template <int kC>
__device__ inline void run_stage(Block& block, Queue& queue, int kind, int layer) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = kStrides[kind].chunks;
  const int mine = (kStrides[kind].tiles - 1 - block.cluster) / kClusters + 1;
  // 5 tiles: two groups, and none of one tile, which would delay what comes before it.
  const int together = kind == kQkv ? 3 : kTogether;
  const unsigned char* from = block.mail.cell(0, layer, input_cells(kind)) +
                              static_cast<int>(block.rank) * chunks * kChunkRowBytes + warp * 128 +
                              lane % 4 * 16;
  block.mark(layer, kStampQkv + 2 * kind);
  Inputs<kC> inputs;
  inputs.bring(from, block.mail.row_bytes, block.rows, chunks);
  block.mark(layer, kStampQkvInputs + 2 * kind);
  int begin = 0;  // of this group of tiles
  int late = 0;   // tiles of the one before it, whose results have not been written
#pragma unroll 1
  for (int own = 0; own < mine; ++own) {
    TileSums sums;
    multiply(sums, queue, inputs, chunks);
    sums.store(block.sums + block.sent % kTogether * Block::kSumFloats);
    ++block.sent;
    const int count = own + 1 - begin;
    const bool last = own + 1 == mine, whole = last || count == together;
    end_tile(block, kind, layer, own, count, late, whole, last);
    late = whole ? count : 0;
    if (whole) begin = own + 1;
  }
  end_results(block, kind);
}

}  // namespace higgs_rt::persist
