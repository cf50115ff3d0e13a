#include "ops/cuda/kernels/persist_kernel.cuh"

namespace higgs_rt::persist {

template cudaError_t fits_width<16, kHalvesFor<16>>(bool&);
template cudaError_t launch_width<16, kHalvesFor<16>>(const PersistStep&, cudaStream_t);

}  // namespace higgs_rt::persist
