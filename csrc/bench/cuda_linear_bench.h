// Matrix products of the 3B model's shapes on a GPU, bf16, beside cuBLASLt's.
#pragma once

#include "bench/report.h"

namespace higgs_rt::bench {

// Groups "cuda linear" (each product for 1 to 256 rows, weights from far more memory than the L2
// cache holds), "cuda linear step" (those of a whole decode step as one graph) and "cuda long" (one
// product by the size of its weight). Throws kUnsupported in a build without CUDA.
void bench_cuda_linear(const Report& report);

// Groups "cuda decoder" (a whole decode step without the sampler as one graph, 228 positions each),
// "cuda adapters" (the same with adapters for every linear weight, chosen by row) and "cuda
// prompts" (a step of whole prompts of 131 tokens). Throws as above.
void bench_cuda_step(const Report& report);

// Group "cublas ranks": the fastest of cuBLASLt's proposals, for each product and number of rows.
// With a file (--json) writes csrc/ops/cuda/cublas_ranks.inc there. Throws as above.
void bench_cublas_ranks(const Report& report);

}  // namespace higgs_rt::bench
