// Attention of the persistent kernel: a block takes a row, a key/value head and a share of the
// context, its warps tiles of 16 positions in turn, which go straight from the cache into
// registers. The context is cut into pieces of a size that depends on its length alone; the sums of
// the warps are joined after every piece, and pieces folded in order, by the block itself or out of
// what other blocks give it: a row has the same bits in every batch.
#pragma once

#include "ops/cuda/kernels/attention_sums.cuh"
#include "ops/cuda/kernels/persist_tiles.cuh"

namespace higgs_rt::persist {

using decode::fold;
using decode::Folded;
using decode::nothing;

// Sums of all warps, in shared memory.
struct WarpSums {
  float* sum;      // [kWarps, kGroup, dim]
  float* largest;  // [kWarps, kGroup]
  float* total;

  __device__ explicit WarpSums(float* memory)
      : sum(memory),
        largest(memory + kWarps * kGroup * Shape::kDim),
        total(largest + kWarps * kGroup) {}

  __device__ void put(const HeadSums& sums) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int g = lane / 4, t = lane % 4;
    float all = sums.total + __shfl_xor_sync(kAll, sums.total, 1);
    all += __shfl_xor_sync(kAll, all, 2);
    if (t == 0 && g < kGroup) {
      largest[warp * kGroup + g] = sums.largest;
      total[warp * kGroup + g] = all;
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int head = 2 * t + e;
      if (head >= kGroup) continue;
      float* to = sum + (warp * kGroup + head) * Shape::kDim;
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        to[HeadSums::place(r, 0)] = sums.sum[r][e];
        to[HeadSums::place(r, 1)] = sums.sum[r][2 + e];
      }
    }
  }
  // Number `d` of every head, over the warps.
  __device__ void over_warps(int d, Folded (&all)[kGroup]) const {
#pragma unroll
    for (int head = 0; head < kGroup; ++head) {
      float most = largest[head];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) most = fmaxf(most, largest[w * kGroup + head]);
      all[head] = {most, 0.0f, 0.0f};
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {  // the first warp always has a position
        const int at = w * kGroup + head;
        const float keep = exp2f(largest[at] - most);
        all[head].total = fmaf(total[at], keep, all[head].total);
        all[head].sum = fmaf(sum[at * Shape::kDim + d], keep, all[head].sum);
      }
    }
  }
};

// The sums of a piece on the way to the block that gathers them: cells of three numbers and a tag,
// so that they need no clearing: a number of every head, the heads' largest scores, their totals.
// A cell is written again only after the gathering block has given its row away.
struct Parts {
  unsigned char* cells;  // of piece 0
  std::uint32_t tag;

  __device__ void put(int piece, int cell, float a, float b, float c) const {
    write_cell(cells + (piece * kPartCells + cell) * 16,
               make_uint4(__float_as_uint(a), __float_as_uint(b), __float_as_uint(c), tag));
  }
  __device__ void put(int piece, int d, const Folded (&all)[kGroup]) const {
    put(piece, d, all[0].sum, all[1].sum, all[2].sum);
    if (d == 0) put(piece, Shape::kDim, all[0].largest, all[1].largest, all[2].largest);
    if (d == 1) put(piece, Shape::kDim + 1, all[0].total, all[1].total, all[2].total);
  }
  __device__ void get(int piece, int d, Folded (&all)[kGroup]) const {
    const int of[3] = {Shape::kDim, Shape::kDim + 1, d};
    uint4 v[3];  // asked for at once
    const auto read = [&](int i) { return read_cell(cells + (piece * kPartCells + of[i]) * 16); };
#pragma unroll
    for (int i = 0; i < 3; ++i) v[i] = read(i);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      while (v[i].w != tag) v[i] = read(i);
    }
    const uint4 &most = v[0], &total = v[1], &sum = v[2];
    all[0] = {__uint_as_float(most.x), __uint_as_float(total.x), __uint_as_float(sum.x)};
    all[1] = {__uint_as_float(most.y), __uint_as_float(total.y), __uint_as_float(sum.y)};
    all[2] = {__uint_as_float(most.z), __uint_as_float(total.z), __uint_as_float(sum.z)};
  }
};
static_assert(kGroup == 3);

// Sums of this block's pieces: done(piece) is called by all threads when the warps' sums of the
// piece are there, and returns when they have been read.
template <class Done>
__device__ inline void walk_pieces(const Block& block, const Unit& unit, int layer, Done done) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int count = unit.tiles(), split = (1 << unit.tiles_log2) - 1;
  const float scale = rsqrtf(static_cast<float>(Shape::kDim)) * 1.44269504f;
  const PersistLayer& caches = block.step.layers[layer];
  const auto slots = [&](int n) {
    return Slots(unit, unit.first(n), block.step.block_tokens_log2);
  };
  KvTile tile;
  fetch_half(tile.k, unit, caches.k_cache, slots(0));
  fetch_half(tile.v, unit, caches.v_cache, slots(0));
  if (block.rows > kAheadRows) prefetch_tiles(unit, block.step, layer, 1);
  uint4 q[4];
  const int head = lane / 4;
  const unsigned char* from = block.mail.cell(unit.row, layer, kQueryCells) +
                              (unit.kv_head * kGroup + min(head, kGroup - 1)) * kHeadBytes +
                              lane % 4 * 16;
#pragma unroll
  for (uint4& cell : q) cell.x = head < kGroup ? kEmpty : 0, cell.y = cell.z = cell.w = 0;
  fetch_newest(tile, unit, block, layer, unit.first(0), [&] {
    bool any = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (is_there(q[i])) continue;
      q[i] = read_cell(from + i * 64);
      any = true;
    }
    return any;
  });
  block.mark(layer, kStampQueries);
  HeadSums sums;
  sums.clear();
#pragma unroll 1
  for (int n = 0; n < count; ++n) {
    const int first = unit.first(n);
    if (first < unit.length) {
      if (n > 0) fetch_newest(tile, unit, block, layer, first, [] { return false; });
      add_tile(sums, q, tile, scale, unit.length - first);
    }
    if (n + 1 < count) {
      fetch_half(tile.k, unit, caches.k_cache, slots(n + 1));
      fetch_half(tile.v, unit, caches.v_cache, slots(n + 1));
    }
    if ((n & split) != split) continue;
    WarpSums(block.sums).put(sums);
    sums.clear();
    sync_warps();
    done(unit.begin + (n >> unit.tiles_log2));
  }
  block.mark(layer, kStampPieces);
}

// A row's attention, [heads of the group][dim]; thread d has number d of every head.
__device__ inline void put_attended(unsigned char* cells, int d, const Folded (&all)[kGroup]) {
#pragma unroll
  for (int head = 0; head < kGroup; ++head) {
    const float value = all[head].sum / all[head].total;
    const float next = __shfl_down_sync(kAll, value, 1);
    const std::uint32_t pair = packed(value, next);  // of even lanes
    const int first = static_cast<int>(threadIdx.x) % 32 & ~7;
    uint4 piece;
    piece.x = __shfl_sync(kAll, pair, first);
    piece.y = __shfl_sync(kAll, pair, first + 2);
    piece.z = __shfl_sync(kAll, pair, first + 4);
    piece.w = __shfl_sync(kAll, pair, first + 6);
    if (d % 8 == 0) write_cell(cells + head * kHeadBytes + d * 2, piece);
  }
}

__device__ inline void run_attention(const Block& block, int layer) {
  const Unit unit = *unit_of(block);
  block.mark(layer, kStampAttention);
  const int half = static_cast<int>(threadIdx.x) / Shape::kDim;
  const int d = static_cast<int>(threadIdx.x) % Shape::kDim;
  const bool gathers = unit.begin == 0 && blockIdx.x < unsigned(block.rows * Shape::kKvHeads);
  unsigned char* attended =
      block.mail.cell(unit.row, layer, kAttendedCells + unit.kv_head * kGroup * kHeadBytes);
  if (unit.begin < unit.end) {
    const Parts parts{block.step.parts + (unit.row * Shape::kKvHeads + unit.kv_head) *
                                             (kMaxPieces * kPartCells * 16),
                      block.tag + static_cast<std::uint32_t>(layer)};
    Folded all[kGroup] = {nothing(), nothing(), nothing()}, one[kGroup];
    const auto add = [&] {
#pragma unroll
      for (int head = 0; head < kGroup; ++head) all[head] = fold(all[head], one[head]);
    };
    walk_pieces(block, unit, layer, [&](int piece) {
      if (half == 0) {
        WarpSums(block.sums).over_warps(d, one);
        if (!gathers) parts.put(piece, d, one);
      }
      sync_warps();
      if (gathers && half == 0) add();
    });
    if (gathers && half == 0) {
      for (int piece = unit.end; piece < unit.pieces; ++piece) {
        parts.get(piece, d, one);
        add();
      }
      put_attended(attended, d, all);
    }
  } else if (gathers && half == 0 && d < kGroup * kHeadBytes / 16) {  // padding
    write_cell(attended + d * 16, make_uint4(0, 0, 0, 0));
  }
  sync_warps();
  block.mark(layer, kStampAttended);
}

}  // namespace higgs_rt::persist
