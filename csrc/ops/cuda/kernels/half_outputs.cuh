// What becomes of the sums of the codec's convolutions on the tensor cores: residual, bias, snake.
#pragma once

#include "ops/cuda/kernels/half_conv.cuh"

namespace higgs_rt {

__device__ inline float snake(float x, float alpha, float scale) {
  const float s = __sinf(alpha * x);
  return fmaf(s * s, scale, x);
}

__device__ inline float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ inline float4 add4(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// The snake of four channels.
struct SnakeOfFour {
  float4 alpha, scale;
  __device__ SnakeOfFour(const HalfSnake& of, int channel)
      : alpha(load4(of.alpha + channel)), scale(load4(of.scale + channel)) {}
};

// fp16(snake(v)) of four channels.
__device__ inline uint2 activate(const SnakeOfFour& of, float4 v) {
  const auto& [alpha, scale] = of;
  const __half2 halves[2] = {
      __floats2half2_rn(snake(v.x, alpha.x, scale.x), snake(v.y, alpha.y, scale.y)),
      __floats2half2_rn(snake(v.z, alpha.z, scale.z), snake(v.w, alpha.w, scale.w))};
  return *reinterpret_cast<const uint2*>(halves);
}

// Threads with four outputs each of two groups of 16 and of one row, to eight threads with a row's
// 32 outputs, so that what they load or store together is a whole line: threads of even rows take
// the first group's outputs of their row and the next, those of odd rows the second group's. `a`
// and `b` are of the two groups before, and of the even and the odd row after; the way back is the
// same.
__device__ inline void pair_rows(float4& a, float4& b) {
  const bool odd = threadIdx.x / 4 % 2 != 0;
  float4 sent = odd ? a : b;
  sent.x = __shfl_xor_sync(0xFFFFFFFFu, sent.x, 4);
  sent.y = __shfl_xor_sync(0xFFFFFFFFu, sent.y, 4);
  sent.z = __shfl_xor_sync(0xFFFFFFFFu, sent.z, 4);
  sent.w = __shfl_xor_sync(0xFFFFFFFFu, sent.w, 4);
  (odd ? a : b) = sent;
}

// Outputs of a thread after pair_rows(), of groups 2 pair and 2 pair + 1.
template <class S>
__device__ int paired_output(int pair) {
  const int lane = threadIdx.x % 32;
  return S::first_output() + pair * 32 + lane / 4 % 2 * 16 + lane % 4 * 4;
}
// Its even row of tile m; the odd one is the next.
template <class S>
__device__ int paired_row(int m, int h) {
  return S::first_row(m) + h * 8 + threadIdx.x % 32 / 8 * 2;
}

// This thread's sums of row h (0 or 1) of two neighbouring products: four consecutive outputs.
template <int kTilesN>
__device__ float4 four_sums(const float (&sum)[kTilesN][4], int g, int h) {
  return {sum[2 * g][2 * h], sum[2 * g][2 * h + 1], sum[2 * g + 1][2 * h],
          sum[2 * g + 1][2 * h + 1]};
}
template <int kTilesN>
__device__ void set_sums(float (&sum)[kTilesN][4], int g, int h, float4 v) {
  sum[2 * g][2 * h] = v.x;
  sum[2 * g][2 * h + 1] = v.y;
  sum[2 * g + 1][2 * h] = v.z;
  sum[2 * g + 1][2 * h + 1] = v.w;
}

// Asks for the residual of a pair of groups in all rows of the thread, in the places of its sums,
// which come into order by order_residual(): until then nothing waits for the loads.
template <class S>
__device__ void ask_residual(const HalfConv& conv, const HalfPlace& place, int pair,
                             float (&sum)[S::kTilesM][S::kTilesN][4]) {
#pragma unroll
  for (int m = 0; m < S::kTilesM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int time = place.first + paired_row<S>(m, h);
      const float* at = conv.residual + static_cast<std::size_t>(time) * conv.outputs +
                        place.output + paired_output<S>(pair);
      set_sums(sum[m], 2 * pair, h, time < place.total ? load4(at) : float4{});
      set_sums(sum[m], 2 * pair + 1, h,
               time + 1 < place.total ? load4(at + conv.outputs) : float4{});
    }
  }
}
template <class S>
__device__ void order_residual(float (&sum)[S::kTilesM][S::kTilesN][4]) {
#pragma unroll
  for (int m = 0; m < S::kTilesM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int pair = 0; pair < S::kTilesN / 4; ++pair) {
        float4 a = four_sums(sum[m], 2 * pair, h), b = four_sums(sum[m], 2 * pair + 1, h);
        pair_rows(a, b);
        set_sums(sum[m], 2 * pair, h, a);
        set_sums(sum[m], 2 * pair + 1, h, b);
      }
    }
  }
}

// The residual, of a layer without phases, as the first summand: its loads overlap with those of
// the operands.
template <class S>
__device__ void take_residual(const HalfConv& conv, const HalfPlace& place,
                              float (&sum)[S::kTilesM][S::kTilesN][4]) {
#pragma unroll
  for (int pair = 0; pair < S::kTilesN / 4; ++pair) ask_residual<S>(conv, place, pair, sum);
  order_residual<S>(sum);
}

// A row that a thread writes.
struct OutputRow {
  bool exists = false, valid = false;
  std::size_t at = 0;  // of the block's first output

  __device__ OutputRow(const HalfConv& conv, const HalfPlace& place, int row) {
    const int time = place.first + row;
    exists = time < place.total;
    if (!exists) return;
    const int item = Divider(conv.rows).quotient(time);
    const int when = conv.out_begin + (time - item * conv.rows) * conv.phases + place.phase;
    const int2 frames = conv.batch.valid[item];
    valid = when >= frames.x * conv.rate && when < frames.y * conv.rate;
    at = (static_cast<std::size_t>(time) * conv.phases + place.phase) * conv.outputs;
  }
};

template <class S>
__device__ void write_tile(const HalfConv& conv, const HalfPlace& place,
                           const float (&sum)[S::kTilesM][S::kTilesN][4]) {
#pragma unroll
  for (int m = 0; m < S::kTilesM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int first = paired_row<S>(m, h);
      const OutputRow rows[2] = {{conv, place, first}, {conv, place, first + 1}};
#pragma unroll
      for (int pair = 0; pair < S::kTilesN / 4; ++pair) {
        const int channel = place.output + paired_output<S>(pair);
        const float4 bias = load4(conv.bias + channel);
        const SnakeOfFour snake(conv.snake, channel);
        float4 both[2] = {four_sums(sum[m], 2 * pair, h), four_sums(sum[m], 2 * pair + 1, h)};
        pair_rows(both[0], both[1]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (!rows[r].exists) continue;
          const std::size_t at = rows[r].at + channel;
          const float4 v = rows[r].valid ? add4(both[r], bias) : float4{};
          if (conv.out != nullptr) *reinterpret_cast<float4*>(conv.out + at) = v;
          *reinterpret_cast<uint2*>(conv.activated + at) = activate(snake, v);
        }
      }
    }
  }
}

}  // namespace higgs_rt
