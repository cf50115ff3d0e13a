// What a block of the persistent kernel does in a layer's attention, and tiles of 16 positions of
// the cache in registers.
#pragma once

#include "ops/cuda/kernels/persist_block.cuh"

namespace higgs_rt::persist {

// Keys and values of 16 positions: [positions 8 i + lane / 4][32 numbers c, 8 (lane % 4) of them].
struct KvTile {
  uint4 k[2][4], v[2][4];
};

// A block's share of a layer's attention: pieces [begin, end) of the context of a row and key/value
// head; the block with the first piece gathers the others' sums.
struct Unit {
  int row, kv_head, length, tiles_log2, begin, end, pieces;
  const std::int32_t* blocks;

  __device__ explicit Unit(const Block& block) {
    const PersistStep& step = block.step;
    const int units = block.rows * Shape::kKvHeads, index = static_cast<int>(blockIdx.x) % units;
    const int split = static_cast<int>(blockIdx.x) / units;
    row = index / Shape::kKvHeads, kv_head = index % Shape::kKvHeads;
    length = step.position[row] + 1, tiles_log2 = 0;
    while ((kTilePositions * kWarps * kMaxPieces << tiles_log2) < length) ++tiles_log2;
    const int piece = kTilePositions * kWarps << tiles_log2;
    pieces = (length + piece - 1) / piece;
    const int splits = static_cast<int>(gridDim.x) / units;
    const int share = (pieces + splits - 1) / splits;
    begin = min(split * share, pieces);
    end = split < splits ? min(begin + share, pieces) : begin;
    blocks = step.block_table + std::int64_t{step.sequence[row]} * step.max_blocks;
  }
  __device__ int tiles() const { return (end - begin) << tiles_log2; }  // of a warp
  // First position of this warp's n-th tile.
  __device__ int first(int n) const {
    const int in = n & ((1 << tiles_log2) - 1), piece = begin + (n >> tiles_log2);
    return (((piece << tiles_log2) + in) * kWarps + static_cast<int>(threadIdx.x) / 32) *
           kTilePositions;
  }
  // Of position p, -1 for those that earlier steps have not written.
  __device__ int slot(int p, int block_tokens_log2) const {
    if (p >= length - 1) return -1;
    return (__ldg(blocks + (p >> block_tokens_log2)) << block_tokens_log2) +
           (p & ((1 << block_tokens_log2) - 1));
  }
};

static_assert(sizeof(Unit) == 40);
__device__ inline Unit* unit_of(const Block& block) { return reinterpret_cast<Unit*>(block.unit); }

// Slots of this lane's positions of a tile.
struct Slots {
  int at[2];
  __device__ Slots(const Unit& unit, int first, int block_tokens_log2) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    at[0] = unit.slot(first + g, block_tokens_log2);
    at[1] = unit.slot(first + 8 + g, block_tokens_log2);
  }
};

__device__ inline std::int64_t cache_offset(int slot, int kv_head) {
  return (std::int64_t{slot} * Shape::kKvHeads + kv_head) * Shape::kDim;
}

// Asks for the keys or values of a tile but for the newest position, which is a number of this
// launch.
__device__ inline void fetch_half(uint4 (&to)[2][4], const Unit& unit, const bf16* cache,
                                  const Slots& slots) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bf16* from =
        cache + cache_offset(max(slots.at[i], 0), unit.kv_head) + threadIdx.x % 4 * 8;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      to[i][c] = make_uint4(0, 0, 0, 0);
      if (slots.at[i] >= 0) to[i][c] = __ldcg(reinterpret_cast<const uint4*>(from + 32 * c));
    }
  }
}

// With more rows keys and values in the L2 cache early cost others more than they gain: the first
// tile goes straight into registers, and only the next ones are brought there meanwhile.
constexpr int kAheadRows = 4;

// Brings kAhead tiles into the L2 cache, two lanes for the keys of a position, two for the values.
constexpr int kAhead = 4;
__device__ inline void prefetch_tiles(const Unit& unit, const PersistStep& step, int layer,
                                      int from) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  const bf16* cache = t < 2 ? step.layers[layer].k_cache : step.layers[layer].v_cache;
  for (int n = from; n < unit.tiles() && n < from + kAhead; ++n) {
    const Slots slots(unit, unit.first(n), step.block_tokens_log2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (slots.at[i] < 0) continue;
      asm volatile("prefetch.global.L2 [%0];" ::"l"(
          cache + cache_offset(slots.at[i], unit.kv_head) + t % 2 * 64));
    }
  }
}

// The step's own position, numbers of this launch, where it is in the tile that begins at `first`;
// and what else the lane waits for, in the same round trips: more() asks for what has not come and
// says whether there was any.
template <class More>
__device__ inline void fetch_newest(KvTile& tile, const Unit& unit, const Block& block, int layer,
                                    int first, More more) {
  const int lane = static_cast<int>(threadIdx.x) % 32, at = unit.length - 1 - first;
  const bool here = at >= 0 && at < kTilePositions && at % 8 == lane / 4, high = at >= 8;
  const unsigned char* keys =
      block.mail.cell(unit.row, layer, kKeyCells) + unit.kv_head * kHeadBytes + lane % 4 * 16;
  uint4 cells[8];  // of the key, of the value
#pragma unroll
  for (uint4& cell : cells) cell.x = here ? kEmpty : 0, cell.y = cell.z = cell.w = 0;
  bool any = true;
  while (any) {
    any = more();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (is_there(cells[i])) continue;
      cells[i] = read_cell(keys + i / 4 * (kValueCells - kKeyCells) + i % 4 * 64);
      any = true;
    }
  }
  __syncwarp();
  if (!here) return;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (high) {
      tile.k[1][c] = cells[c], tile.v[1][c] = cells[4 + c];
    } else {
      tile.k[0][c] = cells[c], tile.v[0][c] = cells[4 + c];
    }
  }
}

// Sums of a warp: lane (g, t) has head g's largest score and total, and of heads 2 t and 2 t + 1
// the numbers place(r, half) of the values.
struct HeadSums {
  float largest, total;
  float sum[8][4];

  __device__ void clear() {
    largest = -INFINITY, total = 0.0f;
#pragma unroll
    for (auto& part : sum) part[0] = part[1] = part[2] = part[3] = 0.0f;
  }
  static __device__ int place(int r, int half) {
    const int g = static_cast<int>(threadIdx.x) % 32 / 4;
    return r / 2 * 32 + g / 2 * 8 + 4 * (r % 2) + 2 * half + g % 2;
  }
};

__device__ inline std::uint32_t transposed(std::uint32_t word) {
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(word));
  return out;
}

// `left` >= 1 positions of the tile exist; `scale` of the scores, in log2 units.
__device__ inline void add_tile(HeadSums& sums, const uint4 (&q)[4], const KvTile& tile,
                                float scale, int left) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  float score[2][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float a[4] = {}, b[4] = {};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      multiply_add(a, q[c].x, 0, q[c].y, 0, tile.k[i][c].x, tile.k[i][c].y);
      multiply_add(b, q[c].z, 0, q[c].w, 0, tile.k[i][c].z, tile.k[i][c].w);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      score[i][e] = 8 * i + 2 * t + e < left ? (a[e] + b[e]) * scale : -INFINITY;
    }
  }
  float largest = fmaxf(fmaxf(score[0][0], score[0][1]), fmaxf(score[1][0], score[1][1]));
  largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, 2));
  largest = fmaxf(largest, sums.largest);
  const float keep = exp2f(sums.largest - largest);
  sums.largest = largest;
#pragma unroll
  for (auto& pair : score) pair[0] = exp2f(pair[0] - largest), pair[1] = exp2f(pair[1] - largest);
  sums.total = sums.total * keep + ((score[0][0] + score[0][1]) + (score[1][0] + score[1][1]));
  const float keep0 = __shfl_sync(kAll, keep, 8 * t), keep1 = __shfl_sync(kAll, keep, 8 * t + 4);
  const std::uint32_t b0 = packed(score[0][0], score[0][1]);
  const std::uint32_t b1 = packed(score[1][0], score[1][1]);
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const uint4 &one = tile.v[0][r / 2], &two = tile.v[1][r / 2];
    float (&c)[4] = sums.sum[r];
    c[0] *= keep0, c[1] *= keep1, c[2] *= keep0, c[3] *= keep1;
    const bool odd = r % 2 != 0;
    multiply_add(c, transposed(odd ? one.z : one.x), transposed(odd ? one.w : one.y),
                 transposed(odd ? two.z : two.x), transposed(odd ? two.w : two.y), b0, b1);
  }
}

}  // namespace higgs_rt::persist
