// The inner loops of the CPU operations, one table per instruction set.
//
// Kernels are single-threaded, work on raw pointers and check nothing; the operations beside this
// file check shapes and split the work. Bits depend on the instruction set, never on the split.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace higgs_rt {

// Packed weights: bf16 [panels, inputs / 2, kPanelStrips, kStrip, 2]. A strip is kStrip outputs; a
// panel, read from its beginning to its end, has several. Outputs beyond the last are zeros.
constexpr std::int64_t kStrip = 16;
constexpr std::int64_t kPanelStrips = 4;

// Packed weights of a transposed convolution: fp32 [tiles, channels, taps of a phase, tile], a tile
// all phases of as many outputs as make up to kMaxUpTile virtual ones.
constexpr std::int64_t kMaxUpTile = 8;
constexpr std::int64_t up_tile_outputs(std::int64_t phases) { return kMaxUpTile / phases * phases; }

// Memory that is to be nearer soon: pieces of kFarLines lines, each of which is asked for once, a
// line or two at a time, by whoever computes meanwhile.
constexpr std::int64_t kFarLine = 64;
constexpr std::int64_t kFarLines = 64;
struct FarMemory {
  const char* const* pieces = nullptr;
  std::int64_t count = 0;
  std::int64_t next = 0;  // of any thread, by atomic operations
};

struct LinearArgs {
  const float* x;      // [rows, inputs]
  const void* weight;  // [outputs, inputs], or panels
  float* out;          // [rows, outputs]
  std::int64_t rows;
  std::int64_t inputs;
  std::int64_t outputs;
  bool accumulate;
  FarMemory* far = nullptr;  // only for linear_panels
};

// A convolution over a block of `count` time steps, phase by phase for the transposed one.
// Virtual output v = o * phases + r adds, at step i and output time i * phases + r + first,
//   sum over c, k of weight[o * w_output + r + c * w_channel + k * w_tap]
//                    * x[c * x_stride + i + k * x_step].
struct ConvArgs {
  const float* x;
  std::int64_t x_stride;
  std::int64_t x_step;
  const float* weight;
  std::int64_t w_output;
  std::int64_t w_channel;
  std::int64_t w_tap;
  const float* bias;      // [O]
  const float* residual;  // [O, out_times] or null; only with one phase
  float* out;             // [O, out_times]
  std::int64_t out_times;
  std::int64_t channels;
  std::int64_t taps;
  std::int64_t phases;
  std::int64_t first;  // times outside [0, out_times) are computed and dropped
  std::int64_t count;
  std::int64_t begin;  // virtual outputs [begin, end)
  std::int64_t end;
};

// Consecutive query rows [row, row + rows) of one sequence that share a key/value head.
struct AttentionArgs {
  const float* q;  // [rows, query_heads, dim], at the first row
  float* out;
  const float* k_cache;  // [slots, kv_heads, dim]
  const float* v_cache;
  const std::int32_t* blocks;    // the sequence's block table
  const std::int32_t* position;  // [rows]
  std::int64_t rows;
  std::int64_t query_heads;
  std::int64_t kv_heads;
  std::int64_t kv_head;
  std::int64_t dim;
  std::int64_t block_tokens;
  float scale;
  float* scores;  // scratch [rows * query_heads / kv_heads, score_stride]
  std::int64_t score_stride;
};

struct Kernels {
  const char* isa;
  std::int64_t conv_step;       // widest tile in time steps; input scratch is padded to it
  std::int64_t attention_rows;  // query rows times heads of one tile
  void (*linear_f32)(const LinearArgs&, std::int64_t begin, std::int64_t end);
  void (*linear_bf16)(const LinearArgs&, std::int64_t begin, std::int64_t end);
  // Packed weights, strips [begin, end); null: this table has no use for them.
  void (*linear_panels)(const LinearArgs&, std::int64_t begin, std::int64_t end);
  void (*conv)(const ConvArgs&);
  // Packed weights, whole tiles [begin, end), 2 to kMaxUpTile phases; w_output, w_channel and w_tap
  // mean nothing. Null: this table has no use for them.
  void (*conv_transposed)(const ConvArgs&);
  void (*attention)(const AttentionArgs&);
  // One row of `size` elements each.
  void (*rms_norm_f32)(const float* x, const float* weight, float eps, float* out,
                       std::int64_t size);
  void (*rms_norm_bf16)(const float* x, const std::uint16_t* weight, float eps, float* out,
                        std::int64_t size);
  void (*swiglu)(const float* gate, const float* up, float* out, std::int64_t size);
  void (*snake)(const float* x, float alpha, float* out, std::int64_t size);
  // out = (first ? 0 : out) + x.
  void (*add_f32)(const float* x, bool first, float* out, std::int64_t size);
  void (*add_bf16)(const std::uint16_t* x, bool first, float* out, std::int64_t size);
};

// The table of the best instruction set of this machine, or of the one that the environment
// variable HIGGS_RT_CPU_ISA (generic, avx2, avx512 or reference) names. Throws kInvalidArgument for
// any other value and kUnsupported for one that this machine or build lacks.
const Kernels& select_kernels();

namespace generic {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}
namespace reference {  // fp64 inside, slow: what the others are held against
const Kernels& kernels();
}

}  // namespace higgs_rt
