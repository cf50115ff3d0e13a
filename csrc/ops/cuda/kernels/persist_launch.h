// The widths of the persistent kernel, each in a file of its own: compiling one takes a while.
#pragma once

#include "ops/cuda/kernels/persist_feed.cuh"

namespace higgs_rt::persist {

// Pieces of weights under way: with four of them others' results came later (docs/performance.md).
template <int kN>
constexpr int kHalvesFor = kN == 8 ? 8 : 7;

// Whether all blocks run at a time.
template <int kN, int kHalves>
cudaError_t fits_width(bool& fits);
template <int kN, int kHalves>
cudaError_t launch_width(const PersistStep& step, cudaStream_t stream);

extern template cudaError_t fits_width<8, kHalvesFor<8>>(bool&);
extern template cudaError_t fits_width<16, kHalvesFor<16>>(bool&);
extern template cudaError_t launch_width<8, kHalvesFor<8>>(const PersistStep&, cudaStream_t);
extern template cudaError_t launch_width<16, kHalvesFor<16>>(const PersistStep&, cudaStream_t);

}  // namespace higgs_rt::persist
