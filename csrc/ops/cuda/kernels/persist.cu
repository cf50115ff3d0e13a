// Launches the persistent kernel.
#include "ops/cuda/kernels/persist_feed.cuh"
#include "ops/cuda/kernels/persist_launch.h"

namespace higgs_rt {

using namespace persist;

std::size_t persist_row_bytes(int layers) {
  return static_cast<std::size_t>(layers + 1) * kLayerBytes;
}

std::size_t persist_part_bytes() {
  return std::size_t{kOneKernelRows} * PersistShape::kKvHeads * kMaxPieces * kPartCells * 16;
}

std::size_t persist_state_bytes() { return 3 * sizeof(std::uint32_t); }

cudaError_t persist_fits(const StreamDevice& device, bool& fits) {
  int ordinal = 0, major = 0, minor = 0;
  fits =
      device.pairs >= kClusters && cudaGetDevice(&ordinal) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal) == cudaSuccess &&
      major == 9 && minor == 0;  // the kernel is compiled for nothing else (CMakeLists.txt)
  if (!fits) return cudaSuccess;
  return fits_blocks(fits);
}

cudaError_t launch_persist(const PersistStep& step, cudaStream_t stream) {
  if (step.rows < 1 || step.rows > kOneKernelRows) return cudaErrorInvalidValue;
  return launch_blocks(step, stream);
}

}  // namespace higgs_rt
