// What becomes of the sums of a product of prompt rows. A tile has 64 outputs for each group of
// four warps, in two halves; where it is gated or rotated there are two groups, a half each. Sums
// go to shared memory in pieces of a few rows, there are two places for them, and from there 16
// bytes at a time to where they belong. Numbers are rounded as by a product of its own and a kernel
// behind it (joined.cu).
#pragma once

#include "ops/cuda/kernels/joined.cuh"
#include "ops/cuda/kernels/stream_linear.h"
#include "ops/cuda/kernels/tensor_core.cuh"

namespace higgs_rt::prompt {

using bf16 = __nv_bfloat16;
using Eight = Pack<bf16, 8>;
using Four = Pack<float, 4>;

constexpr int kTileOutputs = 128, kHalf = 64;  // of two groups of four warps

template <int kReaders>
__device__ inline void meet_readers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kReaders) : "memory");
}

__device__ inline void store_matrices_transposed(std::uint32_t address, std::uint32_t a,
                                                 std::uint32_t b, std::uint32_t c,
                                                 std::uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(a), "r"(b), "r"(c), "r"(d)
      : "memory");
}

// Pieces of 32 rows of bf16 numbers.
struct NarrowPieces {
  static constexpr int kRows = 32, kStride = 2 * kTileOutputs + 16, kBytes = kRows * kStride;

  template <int kSums>
  __device__ static void lay_down(std::uint32_t to, int piece, const float (&sum)[kSums]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int matrix = lane / 8;
    const std::uint32_t place =
        to + (matrix / 2 * 8 + lane % 8) * kStride + (warp * 16 + matrix % 2 * 8) * 2;
#pragma unroll
    for (int j = 0; j < kRows / 8; j += 2) {
      const int first =
          4 * (piece * (kRows / 8) + j);  // of the sums of eight rows, then eight more
      if (first >= kSums) break;
      const float* s = sum + first;
      const float* t = first + 4 < kSums ? s + 4 : s;
      store_matrices_transposed(place + j * 8 * kStride, packed(s[0], s[1]), packed(s[2], s[3]),
                                packed(t[0], t[1]), packed(t[2], t[3]));
    }
  }
  __device__ static Eight read(std::uint32_t from, int row, int output) {
    Pack<std::uint32_t, 4> v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.item[0]), "=r"(v.item[1]), "=r"(v.item[2]), "=r"(v.item[3])
                 : "r"(from + row * kStride + output * 2)
                 : "memory");
    return *reinterpret_cast<const Eight*>(&v);
  }
};

// Pieces of 16 rows of fp32 numbers, of 64 outputs for each group of four warps.
template <int kGroups>
struct ExactPieces {
  static constexpr int kRows = 16, kStride = (64 * kGroups + 4) * 4, kBytes = kRows * kStride;

  template <int kSums>
  __device__ static void lay_down(std::uint32_t to, int piece, const float (&sum)[kSums]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const std::uint32_t place = to + lane % 4 * 2 * kStride + (warp * 16 + lane / 4) * 4;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      const int first = 4 * (piece * (kRows / 8) + j);
      if (first >= kSums) break;
      const float* s = sum + first;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        asm volatile(
            "st.shared.f32 [%0], %1;" ::"r"(place + (8 * j + i % 2) * kStride + i / 2 * 32),
            "f"(s[i])
            : "memory");
      }
    }
  }
  __device__ static Four read(std::uint32_t from, int row, int output) {
    Four v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.item[0]), "=f"(v.item[1]), "=f"(v.item[2]), "=f"(v.item[3])
                 : "r"(from + row * kStride + output * 4)
                 : "memory");
    return v;
  }
};

struct NoPieces {
  static constexpr int kRows = 0, kBytes = 0;
};

// out [rows, width] = silu(gate) * up, the weight [2 width, inputs] gate first.
struct GatedEnd {
  using Pieces = NarrowPieces;
  static constexpr int kAheadRegisters = 0;
  struct Ahead {};
  bf16* out;
  int width;

  __host__ __device__ int tiles() const { return (width + kHalf - 1) / kHalf; }
  // The row of the weight at `offset` of a tile.
  __device__ int weight_row(int tile, int offset) const {
    return offset / kHalf * width + tile * kHalf + offset % kHalf;
  }
  __device__ Ahead ahead(int, int, int) const { return {}; }
  __device__ void write(std::uint32_t from, int tile, int first, int rows, const Ahead&) const {
    const int row = static_cast<int>(threadIdx.x) / 8, i = static_cast<int>(threadIdx.x) % 8 * 8;
    const int output = tile * kHalf + i;
    if (first + row >= rows || output >= width) return;
    const Eight gate = Pieces::read(from, row, i), up = Pieces::read(from, row, kHalf + i);
    Eight result;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      result.item[j] = rounded<bf16>(gated(number(gate.item[j]), number(up.item[j])));
    }
    store_pack(out + std::int64_t{first + row} * width + output, result);
  }
};

// Rotated queries, rotated keys and values, where they belong; the head size is a multiple of 128.
struct QkvEnd {
  using Pieces = NarrowPieces;
  static constexpr int kAheadRegisters = 17;
  struct Ahead {
    Four turns[4];  // cosine and sine of eight pairs
    int slot;
  };
  QkvOutput to;

  __host__ __device__ int tiles() const {
    return (to.heads + 2 * to.kv_heads) * (to.dim / kTileOutputs);
  }
  __device__ int head_of(int tile) const { return tile * kHalf / (to.dim / 2); }
  __device__ int pair_of(int tile) const { return tile * kHalf % (to.dim / 2); }
  __device__ int weight_row(int tile, int offset) const {
    return head_of(tile) * to.dim + offset / kHalf * (to.dim / 2) + pair_of(tile) + offset % kHalf;
  }
  __device__ Ahead ahead(int tile, int first, int rows) const {
    Ahead a;
    const int row = first + static_cast<int>(threadIdx.x) / 8, head = head_of(tile);
    const bool real = row < rows;
    const int position = real && head < to.heads + to.kv_heads ? to.position[row] : -1;
    a.slot = real && head >= to.heads ? to.slot[row] : -1;
    const int i = pair_of(tile) + static_cast<int>(threadIdx.x) % 8 * 8;
    const float* from = to.rope + (std::int64_t{max(position, 0)} * (to.dim / 2) + i) * 2;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      a.turns[j] = position >= 0 ? load_pack<4>(from + 4 * j) : Four{1.0f, 0.0f, 1.0f, 0.0f};
    }
    return a;
  }
  __device__ void write(std::uint32_t from, int tile, int first, int rows, const Ahead& a) const {
    const int row = static_cast<int>(threadIdx.x) / 8, i = static_cast<int>(threadIdx.x) % 8 * 8;
    const int head = head_of(tile);
    if (first + row >= rows || (head >= to.heads && a.slot < 0)) return;
    Eight low = Pieces::read(from, row, i), high = Pieces::read(from, row, kHalf + i);
    if (head < to.heads + to.kv_heads) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const Four& turn = a.turns[j / 2];
        const Turned t = turned(number(low.item[j]), number(high.item[j]), turn.item[j % 2 * 2],
                                turn.item[j % 2 * 2 + 1]);
        low.item[j] = rounded<bf16>(t.low), high.item[j] = rounded<bf16>(t.high);
      }
    }
    bf16* place = to.q + (std::int64_t{first + row} * to.heads + head) * to.dim;
    if (head >= to.heads) {
      const bool is_value = head >= to.heads + to.kv_heads;
      const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
      place = (is_value ? to.v_cache : to.k_cache) +
              (std::int64_t{a.slot} * to.kv_heads + kv_head) * to.dim;
    }
    place += pair_of(tile) + i;
    store_pack(place, low);
    store_pack(place + to.dim / 2, high);
  }
};

// out [rows, outputs] += the product, from the sums as they lie in registers: no shared memory.
// Tiles of kTile outputs.
template <int kTile>
struct AddEnd {
  using Pieces = NoPieces;
  float* out;
  int outputs;

  __host__ __device__ int tiles() const { return (outputs + kTile - 1) / kTile; }
  __device__ int weight_row(int tile, int offset) const { return tile * kTile + offset; }
};

// The same through shared memory, for tiles whose sums leave few registers.
template <int kGroups>
struct AddPiecesEnd {
  using Pieces = ExactPieces<kGroups>;
  static constexpr int kAheadRegisters = 1000;  // a piece ahead only
  static constexpr int kTile = 64 * kGroups, kReaders = 128 * kGroups;
  static constexpr int kEach = Pieces::kRows * kTile / 4 / kReaders;
  struct Ahead {
    Four before[kEach];
  };
  float* out;
  int outputs;

  __host__ __device__ int tiles() const { return (outputs + kTile - 1) / kTile; }
  __device__ int weight_row(int tile, int offset) const { return tile * kTile + offset; }
  __device__ int row_of(int n) const {
    return (static_cast<int>(threadIdx.x) + n * kReaders) / (kTile / 4);
  }
  __device__ int column_of() const { return static_cast<int>(threadIdx.x) % (kTile / 4) * 4; }
  __device__ float* place(int tile, int row) const {
    return out + std::int64_t{row} * outputs + tile * kTile + column_of();
  }
  __device__ bool inside(int tile, int row, int rows) const {
    return row < rows && tile * kTile + column_of() < outputs;
  }
  __device__ Ahead ahead(int tile, int first, int rows) const {
    Ahead a;
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const int row = first + row_of(n);
      if (inside(tile, row, rows)) a.before[n] = load_pack<4>(place(tile, row));
    }
    return a;
  }
  __device__ void write(std::uint32_t from, int tile, int first, int rows, const Ahead& a) const {
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const int row = first + row_of(n);
      if (!inside(tile, row, rows)) continue;
      Four sum = Pieces::read(from, row_of(n), column_of());
#pragma unroll
      for (int j = 0; j < 4; ++j) sum.item[j] += a.before[n].item[j];
      store_pack(place(tile, row), sum);
    }
  }
};

}  // namespace higgs_rt::prompt
