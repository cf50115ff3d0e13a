// What follows a product of several matrices in one, number by number: the same arithmetic wherever
// a prompt row goes, so that it has the same bits.
#pragma once

#include "ops/cuda/kernels/numbers.cuh"

namespace higgs_rt {

// silu(gate) * up. Both approximations are far closer than the rounding that follows.
__device__ inline float gated(float gate, float up) {
  return __fmul_rn(__fdividef(gate, 1.0f + __expf(-gate)), up);
}

// The pair (low, high) turned by an angle with this cosine and sine.
struct Turned {
  float low, high;
};
__device__ inline Turned turned(float low, float high, float cosine, float sine) {
  return {__fmaf_rn(low, cosine, -__fmul_rn(high, sine)),
          __fmaf_rn(high, cosine, __fmul_rn(low, sine))};
}

}  // namespace higgs_rt
