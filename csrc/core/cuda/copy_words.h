// Small copies between the GPU's memory and pinned host memory, by a kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace higgs_rt {

// What a kernel copies sooner than the copy engine begins (7 to 10 us); bytes.
constexpr std::size_t kMostCopiedWords = std::size_t{64} << 10;

// Whether launch_copy_words() can: whole 4-byte words at such addresses, and few.
bool can_copy_words(const void* to, const void* from, std::size_t bytes);

// Enqueues the copy. One side is the GPU's memory, the other may be pinned (host and GPU use the
// same addresses for it); they do not overlap. It begins when everything ahead of it has ended, as
// a copy of the copy engine does. A graph behind it waits for it; of kernels behind it
// (core/cuda/launch.cuh) the first one starts when it has ended and must call grid_wait() before
// grid_launch_next(): then those behind that one may read what was copied before their own
// grid_wait().
cudaError_t launch_copy_words(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

}  // namespace higgs_rt
