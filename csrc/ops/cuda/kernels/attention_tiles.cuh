// Tiles of 16 positions of the paged cache, for rows that stand alone in their sequence: how a warp
// copies one and adds it to its sums.
#pragma once

#include "ops/cuda/kernels/attention_sums.cuh"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt::decode {

inline constexpr int kTile = 16;  // positions of a warp's tile
inline constexpr int kStages = 2;

// Reads an input of the step. The read stays where it is written, so that several go out together.
__device__ inline int read_now(const std::int32_t* from) {
  int value;
  asm volatile("ld.volatile.global.b32 %0, [%1];" : "=r"(value) : "l"(from));
  return value;
}

// Splits of the shortest size, 2^kLeastLog2 tiles of each warp, and what a longer context takes.
inline constexpr int kLeastLog2 = 1;
static_assert(kSplit == kTile * kWarps << kLeastLog2);
__device__ inline int tiles_log2_of(int length) {
  int log2 = kLeastLog2;
  while ((kTile * kWarps * kMaxSplits << log2) < length) ++log2;
  return log2;
}
__device__ inline int splits_of(int length, int tiles_log2) {
  static_assert(kTile * kWarps == 1 << 6);
  return ((length - 1) >> (6 + tiles_log2)) + 1;
}

// `reciprocal` is 2^32 / size, rounded down.
struct Quotient {
  int whole, rest;
};
__device__ inline Quotient divide(int number, int size, std::uint32_t reciprocal) {
  Quotient q;
  q.whole = static_cast<int>(__umulhi(static_cast<unsigned>(number), reciprocal));
  q.rest = number - q.whole * size;
  if (q.rest >= size) ++q.whole, q.rest -= size;
  return q;
}

// The blocks of a sequence. A slot is found in two steps, so that the read of the table can go out
// long before it is needed.
struct BlockTable {
  const std::int32_t* blocks;
  std::int32_t last;  // of the entries
  std::int32_t block_tokens;
  std::uint32_t reciprocal;  // 2^32 / block_tokens, rounded down

  __device__ BlockTable(const AttentionShape& shape, const std::int32_t* tables, int sequence)
      : blocks(tables + std::int64_t{sequence} * shape.max_blocks),
        last(shape.max_blocks - 1),
        block_tokens(shape.block_tokens),
        reciprocal(shape.block_reciprocal) {}

  // The entry for a position, or any where the table has none.
  __device__ int entry(int position) const {
    return read_now(blocks + min(divide(position, block_tokens, reciprocal).whole, last));
  }
  __device__ int slot(int position, int entry) const {
    return entry * block_tokens + divide(position, block_tokens, reciprocal).rest;
  }
};

// The part of a context that one block works on.
struct Context {
  BlockTable table;
  int length;      // 0 or less: none
  int tiles_log2;  // of the tiles of one warp in a split
  int splits;
  int entry[3];  // of the table, for this lane's position of the first tiles

  // Of the row `row`. What is read here are inputs of the step.
  __device__ Context(const AttentionShape& shape, const AttentionData& data, int row)
      : table(shape, data.block_table, min(row, shape.sequences - 1)), tiles_log2(kLeastLog2) {
    // Row i of a recorded step is that of sequence i, and a context seldom has more than kMaxSplits
    // of the shortest splits: then one wait is enough for all that is to be read.
    find_entries();
    length = read_now(data.position + row) + 1;
    const int sequence = read_now(data.sequence + row);
    if (length <= 0) return;
    tiles_log2 = tiles_log2_of(length), splits = splits_of(length, tiles_log2);
    if (sequence == min(row, shape.sequences - 1) && tiles_log2 == kLeastLog2) return;
    table = BlockTable(shape, data.block_table, sequence);
    find_entries();
  }

  __device__ int split_tiles() const { return 1 << tiles_log2; }
  // First position of the n-th tile that this warp meets.
  __device__ int tile_position(int n) const {
    const int split = blockIdx.x + gridDim.x * (n >> tiles_log2);
    const int tile = (split << tiles_log2) + (n & (split_tiles() - 1));
    return (tile * kWarps + static_cast<int>(threadIdx.x) / 32) * kTile;
  }
  // This lane's position of it; lanes 16 to 31 have those of 0 to 15.
  __device__ int position_in(int n) const {
    return tile_position(n) + static_cast<int>(threadIdx.x) % kTile;
  }
  __device__ int entry_in(int n) const { return table.entry(position_in(n)); }
  __device__ int slot_in(int n, int entry) const {
    return position_in(n) < length ? table.slot(position_in(n), entry) : -1;
  }

 private:
  __device__ void find_entries() {
#pragma unroll
    for (int n = 0; n < 3; ++n) entry[n] = entry_in(n);
  }
};

// Keys and values of the head blockIdx.y.
struct HeadCache {
  const __nv_bfloat16 *k, *v;  // of slot 0
  int stride;                  // of a slot

  __device__ HeadCache(const AttentionData& data, int dim)
      : k(static_cast<const __nv_bfloat16*>(data.k_cache) + blockIdx.y * dim),
        v(static_cast<const __nv_bfloat16*>(data.v_cache) + blockIdx.y * dim),
        stride(static_cast<int>(gridDim.y) * dim) {}
};

// Copies a tile of keys and values but for its row `later`; lane l < 16 holds the slot of the
// tile's position l.
template <int D>
__device__ inline void copy_tile(const HeadCache& cache, int slot, int later, std::uint32_t keys,
                                 std::uint32_t values, std::uint64_t once) {
  constexpr int kChunks = D / 8, kRowsAtOnce = 32 / kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
#pragma unroll
  for (int r = 0; r < kTile; r += kRowsAtOnce) {
    const int row = r + lane / kChunks;
    const int at = __shfl_sync(kAllLanes, slot, row);
    if (row == later) continue;
    const std::int64_t from = std::int64_t{max(at, 0)} * cache.stride + chunk * 8;
    const std::uint32_t to = chunk_offset<2 * D>(row, chunk);
    copy_async_once(keys + to, cache.k + from, at >= 0, once);
    copy_async_once(values + to, cache.v + from, at >= 0, once);
  }
}

// Copies the keys and values of row `row` of a tile, whose slot lane `row` holds.
template <int D>
__device__ inline void copy_position(const HeadCache& cache, int slot, int row, std::uint32_t keys,
                                     std::uint32_t values) {
  constexpr int kChunks = D / 8;
  static_assert(2 * kChunks <= 32);
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
  const int at = __shfl_sync(kAllLanes, slot, row);
  if (lane >= 2 * kChunks) return;
  const __nv_bfloat16* from = lane < kChunks ? cache.k : cache.v;
  copy_async((lane < kChunks ? keys : values) + chunk_offset<2 * D>(row, chunk),
             from + std::int64_t{at} * cache.stride + chunk * 8, true);
}

// Tiles begin at a multiple of 256 bytes, so that lanes find their chunks by an exclusive or.

// The queries of a group as the left factor of a product takes them: of 16 rows, the heads.
template <int D>
struct Queries {
  std::uint32_t part[D / 16][4];

  __device__ void load(const __nv_bfloat16* q, int group) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // (Heads 8 to 15 do not exist. The compiler does not know that, and keeps their zeros where
        // the products want them instead of making them again for each tile.)
        const int head = g + i % 2 * 8;
        const __nv_bfloat16* from = q + head * D + 16 * k + 2 * t + i / 2 * 8;
        part[k][i] = head < group ? *reinterpret_cast<const std::uint32_t*>(from) : 0;
      }
    }
  }
};

// Scores of the tile in log2 units: head g at positions 8 j + 2 t and + 1.
template <int D>
__device__ inline void score_tile(const Queries<D>& q, std::uint32_t keys, float scale, int left,
                                  float (&score)[2][2]) {
  const int lane = threadIdx.x % 32;
  const std::uint32_t place = keys + chunk_offset<2 * D>(lane % 8, lane / 8);
  float c[2][4] = {};
#pragma unroll
  for (int k = 0; k < D / 32; ++k) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      // Of row 8 j + lane % 8 the chunk 4 k + lane / 8.
      const Matrices b = load_matrices((place ^ (k << 6)) + j * 8 * 2 * D);
      const auto &low = q.part[2 * k], &high = q.part[2 * k + 1];
      multiply_add(c[j], low[0], low[1], low[2], low[3], b.part[0], b.part[1]);
      multiply_add(c[j], high[0], high[1], high[2], high[3], b.part[2], b.part[3]);
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int position = 8 * j + 2 * (lane % 4) + i;
      score[j][i] = position < left ? c[j][i] * scale : -INFINITY;
    }
  }
}

// Adds the values of a tile by its scores. `first`: the sums are of nothing yet.
template <int D>
__device__ inline void add_values(float (&score)[2][2], std::uint32_t values, bool first,
                                  Sums<D>& sums) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  const std::uint32_t place = values + chunk_offset<2 * D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  float largest = fmaxf(fmaxf(score[0][0], score[0][1]), fmaxf(score[1][0], score[1][1]));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  largest = fmaxf(largest, sums.largest);
  const float keep = power_of_two(sums.largest - largest);
  sums.largest = largest;
#pragma unroll
  for (auto& pair : score) {
    pair[0] = power_of_two(pair[0] - largest);
    pair[1] = power_of_two(pair[1] - largest);
  }
  sums.total = sums.total * keep + ((score[0][0] + score[0][1]) + (score[1][0] + score[1][1]));
  const float keep0 = __shfl_sync(kAllLanes, keep, 8 * t);
  const float keep1 = __shfl_sync(kAllLanes, keep, 8 * t + 4);
  const std::uint32_t b0 = packed(score[0][0], score[0][1]);
  const std::uint32_t b1 = packed(score[1][0], score[1][1]);
  if (!first) {
#pragma unroll
    for (auto& c : sums.sum) {
      c[0] *= keep0;
      c[1] *= keep1;
      c[2] *= keep0;
      c[3] *= keep1;
    }
  }
#pragma unroll
  for (int r = 0; r < D / 16; ++r) {
    const Matrices a = load_matrices_transposed(place ^ (r << 5));  // 2 r chunks further
    float (&c)[4] = sums.sum[r];
    multiply_add(c, a.part[0], a.part[1], a.part[2], a.part[3], b0, b1);
  }
}

// Adds a tile with `left` >= 1 positions to the sums.
template <int D>
__device__ inline void add_tile(const Queries<D>& q, std::uint32_t keys, std::uint32_t values,
                                float scale, int left, bool first, Sums<D>& sums) {
  float score[2][2];
  score_tile<D>(q, keys, scale, left, score);
  add_values<D>(score, values, first, sums);
}

}  // namespace higgs_rt::decode
