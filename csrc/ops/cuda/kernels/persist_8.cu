#include "ops/cuda/kernels/persist_kernel.cuh"

namespace higgs_rt::persist {

template cudaError_t fits_width<8, kHalvesFor<8>>(bool&);
template cudaError_t launch_width<8, kHalvesFor<8>>(const PersistStep&, cudaStream_t);

}  // namespace higgs_rt::persist
