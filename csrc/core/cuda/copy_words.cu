#include <algorithm>
#include <cstdint>

#include "core/cuda/copy_words.h"
#include "core/cuda/launch.cuh"

namespace higgs_rt {
namespace {

constexpr std::size_t kThreads = 256;
constexpr std::size_t kMostBlocks = 16;

// to[i] = from[i], i < count.
template <class Word>
__global__ void copy_words_kernel(Word* to, const Word* from, std::size_t count) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    to[i] = from[i];
  }
}

bool is_aligned(const void* to, const void* from, std::size_t bytes, std::size_t size) {
  return (reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | bytes) %
             size ==
         0;
}

template <class Word>
cudaError_t launch_as(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const std::size_t count = bytes / sizeof(Word);
  const std::size_t blocks = std::min((count + kThreads - 1) / kThreads, kMostBlocks);
  return launch_in_order(copy_words_kernel<Word>, static_cast<unsigned>(blocks), kThreads, 0,
                         stream, static_cast<Word*>(to), static_cast<const Word*>(from), count);
}

}  // namespace

bool can_copy_words(const void* to, const void* from, std::size_t bytes) {
  return bytes > 0 && bytes <= kMostCopiedWords && is_aligned(to, from, bytes, 4);
}

cudaError_t launch_copy_words(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  return is_aligned(to, from, bytes, sizeof(uint4)) ? launch_as<uint4>(to, from, bytes, stream)
                                                    : launch_as<unsigned>(to, from, bytes, stream);
}

}  // namespace higgs_rt
