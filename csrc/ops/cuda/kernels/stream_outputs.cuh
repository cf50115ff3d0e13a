// What becomes of the sums of a weight-streaming product. A unit is 16 outputs, two halves of 8
// that belong together in pairs: unit u, pair g stands for weight rows weight_row(u, g, 0) and
// weight_row(u, g, 1), and write() gets the sums of both.
#pragma once

#include "ops/cuda/kernels/numbers.cuh"
#include "ops/cuda/kernels/stream_inputs.cuh"
#include "ops/cuda/kernels/stream_linear.h"

namespace higgs_rt::stream {

// What an output that needs no tables has in common.
struct NoTables {
  struct Ahead {};
  __device__ Ahead ahead(int) const { return {}; }
  __device__ void prepare(unsigned char*, const Ahead&, int) const {}
};

// Neighbouring outputs: out = or += the sums.
template <class T, bool kAdd>
struct RowsOutput : NoTables {
  T* out;  // [rows, outputs]
  int outputs;

  __host__ __device__ int units() const { return (outputs + 15) / 16; }
  __device__ int weight_row(int unit, int g, int half) const {
    return min(unit * 16 + half * 8 + g, outputs - 1);
  }
  __device__ void write(const unsigned char*, int, int unit, int g, int n, float low,
                        float high) const {
    T* row = out + std::int64_t{n} * outputs;
    const int o = unit * 16 + g;
    if (o < outputs) put(row + o, low);
    if (o + 8 < outputs) put(row + o + 8, high);
  }
  __device__ static void put(T* place, float value) {
    if constexpr (kAdd) {
      atomicAdd(place, value);  // the only addition to this number; nothing waits for it
    } else {
      *place = rounded<T>(value);
    }
  }
};

// Gate f and up f: silu(gate) * up.
struct SwigluOutput : NoTables {
  bf16* out;  // [rows, width]
  int width;

  __host__ __device__ int units() const { return (width + 7) / 8; }
  __device__ int weight_row(int unit, int g, int half) const {
    return min(unit * 8 + g, width - 1) + half * width;
  }
  __device__ void write(const unsigned char*, int, int unit, int g, int n, float gate,
                        float up) const {
    const int f = unit * 8 + g;
    if (f >= width) return;
    out[std::int64_t{n} * width + f] = rounded<bf16>(gate / (1.0f + expf(-gate)) * up);
  }
};

// Numbers i and i + dim / 2 of a head: rotated (keys, queries), then to q or to the caches.
struct RotatedOutput {
  QkvOutput to;

  // The step's positions are read early, the tables they lead to later.
  struct Ahead {
    int position[4];
  };
  static constexpr int kAhead = 4;

  __host__ __device__ int half() const { return to.dim / 2; }
  __host__ __device__ int pairs() const { return (to.heads + 2 * to.kv_heads) * half(); }
  __host__ __device__ int units() const { return (pairs() + 7) / 8; }
  static std::size_t table_bytes(int rows, int dim) {
    return static_cast<std::size_t>(rows) * (4 * static_cast<std::size_t>(dim) + 4);
  }
  __device__ int weight_row(int unit, int g, int half_index) const {
    const int pair = min(unit * 8 + g, pairs() - 1), head = pair / half();
    return head * to.dim + pair - head * half() + half_index * half();
  }

  __device__ Ahead ahead(int rows) const {
    Ahead result;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = static_cast<int>(threadIdx.x) + kThreads * j;
      result.position[j] = i < rows * half() ? to.position[i / half()] : 0;
    }
    return result;
  }
  // Shared memory: float2 [rows, dim / 2] cos and sin, then int [rows] slots.
  __device__ void prepare(unsigned char* memory, const Ahead& before, int rows) const {
    auto* turns = reinterpret_cast<float2*>(memory);
    const auto turn = [&](int i, int position) {
      const std::int64_t place = std::int64_t{position} * half() + i % half();
      turns[i] =
          position < 0 ? make_float2(1.0f, 0.0f) : reinterpret_cast<const float2*>(to.rope)[place];
    };
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = static_cast<int>(threadIdx.x) + kThreads * j;
      if (i < rows * half()) turn(i, before.position[j]);
    }
    for (int i = static_cast<int>(threadIdx.x) + kThreads * kAhead; i < rows * half();
         i += kThreads) {
      turn(i, to.position[i / half()]);
    }
    auto* slots = reinterpret_cast<int*>(turns + rows * half());
    for (int n = static_cast<int>(threadIdx.x); n < rows; n += kThreads) slots[n] = to.slot[n];
  }

  __device__ void write(const unsigned char* memory, int rows, int unit, int g, int n, float low,
                        float high) const {
    const int pair = unit * 8 + g, head = pair / half(), i = pair - head * half();
    if (pair >= pairs()) return;
    const auto* turns = reinterpret_cast<const float2*>(memory);
    const bool is_value = head >= to.heads + to.kv_heads;
    if (!is_value) {
      const float2 turn = turns[n * half() + i];
      const float rotated = low * turn.x - high * turn.y;
      high = high * turn.x + low * turn.y;
      low = rotated;
    }
    bf16* row = nullptr;
    if (head < to.heads) {
      row = to.q + (std::int64_t{n} * to.heads + head) * to.dim;
    } else {
      const std::int64_t slot = reinterpret_cast<const int*>(turns + rows * half())[n];
      if (slot < 0) return;
      const int kv_head = head - to.heads - (is_value ? to.kv_heads : 0);
      row = (is_value ? to.v_cache : to.k_cache) + (slot * to.kv_heads + kv_head) * to.dim;
    }
    row[i] = rounded<bf16>(low);
    row[i + half()] = rounded<bf16>(high);
  }
};

}  // namespace higgs_rt::stream
