// Matrix products of up to 128 rows with bf16 weights on compute capability 9.0: the weights are
// the left factor of wgmma, so they stream from memory once and the rows, padded to 16,
// 32, 48, 64, 80, 96, 112 or 128, cost little. With what stands behind such a product in the
// decoder. Launchers: device pointers (multiples of 16), sizes, a stream; each launch may be
// captured in a CUDA graph.
//
// A row has the same bits for every number of rows: the inputs are split into as many parts as the
// weight alone says, each part is one chain of sums over its inputs in steps of 16, and parts are
// added in order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "ops/cuda/kernels/stream_linear.h"

namespace higgs_rt {

constexpr int kWideMaxRows = 128;

// What becomes of the sums.
enum class WideEnd { kStoreBf16, kStoreF32, kAdd, kSwiglu, kQkv };
// kAdd may also begin the RMS norm that stands behind it: each new value times the norm's weight,
// and what the next product needs to apply the rest to its sums (WideFactors). At most kWideMaxRows
// rows.
struct WideNext {
  const __nv_bfloat16* norm;  // [outputs]
  __nv_bfloat16* rows;        // [rows, outputs]
  float* squares;             // [wide_tiles(outputs), kWideMaxRows]: sums of squares of a tile
};
struct WideOutput {
  WideEnd end;
  void* out;      // [rows, outputs] bf16 or fp32; kSwiglu: [rows, outputs / 2] bf16; kQkv: unused
  QkvOutput qkv;  // kQkv
  WideNext next;  // kAdd: all null or all set
};
// Sums of a row are multiplied by 1 / sqrt(squares of the row / size + eps); not for kAdd.
struct WideFactors {
  const float* squares;  // [tiles, kWideMaxRows]; null: by 1
  int tiles, size;
  float eps;
};
inline int wide_tiles(int outputs) { return (outputs + 127) / 128; }

// On the calling thread's current GPU.
bool wide_runs();
// Whether these sizes can be a product; `dim` of QkvOutput, else 0.
bool wide_takes(int rows, int outputs, int inputs, int dim);

cudaError_t launch_wide(const StreamWeight& weight, const PlainRows& x, const WideFactors& factors,
                        const WideOutput& output, cudaStream_t stream);

}  // namespace higgs_rt
