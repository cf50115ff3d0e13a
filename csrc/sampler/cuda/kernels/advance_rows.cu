#include "sampler/advance_row.h"
#include "sampler/cuda/kernels/advance_rows.h"

namespace higgs_rt {

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

// The group of one warp (row_passes.h).
struct WarpLanes {
  static constexpr std::int32_t kCount = 32;
  static_assert(kCount == kDrawLanes);

  __device__ std::int32_t index() const { return static_cast<std::int32_t>(threadIdx.x % 32u); }
  __device__ std::uint32_t sum(std::uint32_t value) const {
    return __reduce_add_sync(kAllLanes, value);
  }
  __device__ std::uint64_t sum(std::uint64_t value) const {
    for (int offset = 16; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(kAllLanes, value, offset);
    }
    return value;
  }
  __device__ std::int32_t max(std::int32_t value) const {
    return __reduce_max_sync(kAllLanes, value);
  }
  __device__ std::int32_t min(std::int32_t value) const {
    return __reduce_min_sync(kAllLanes, value);
  }

  __device__ std::int32_t find(const std::uint32_t* weights, std::int32_t vocab,
                               std::uint64_t target) const {
    std::uint64_t own = 0;
    for (std::int32_t i = index(); i < vocab; i += kCount) own += weights[i];
    std::uint64_t through = own;  // weight of this lane and those before it
    for (int offset = 1; offset < 32; offset *= 2) {
      const std::uint64_t before = __shfl_up_sync(kAllLanes, through, offset);
      if (index() >= offset) through += before;
    }
    const int lane = __ffs(__ballot_sync(kAllLanes, target < through)) - 1;
    std::int32_t id = index();
    if (id == lane) {
      target -= through - own;
      while (target >= weights[id]) {
        target -= weights[id];
        id += kCount;
      }
    }
    return __shfl_sync(kAllLanes, id, lane);
  }
};

// One block per row, one warp per codebook.
__global__ void advance_rows_kernel(AdvanceRows arguments) {
  extern __shared__ std::int32_t scratch[];
  __shared__ std::int32_t ids[kMaxCodebooks];
  const std::int32_t num_codebooks = arguments.num_codebooks;
  const std::int32_t vocab = arguments.codebook_vocab;
  const std::int32_t row = arguments.rows[blockIdx.x];
  if (row < 0) return;  // padding
  const auto codebook = static_cast<std::int32_t>(threadIdx.x / 32u);
  RowState& state = arguments.states[row];
  const bool running = !state.finished;

  const LiveRange live = live_range(state.stream, state.params.rule, num_codebooks);
  if (running && codebook >= live.first && codebook < live.last) {
    const auto which = static_cast<std::size_t>(blockIdx.x) * num_codebooks + codebook;
    std::int32_t* keys = scratch + 2 * codebook * vocab;
    auto* weights = reinterpret_cast<std::uint32_t*>(keys + vocab);
    const std::int32_t id = sample_codebook(
        WarpLanes{}, state, codebook, arguments.logits + which * vocab, vocab, {keys, weights});
    if (threadIdx.x % 32u == 0) ids[codebook] = id;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;

  std::int32_t* last = arguments.last_columns + static_cast<std::size_t>(row) * num_codebooks;
  std::int32_t* out = arguments.columns + static_cast<std::size_t>(blockIdx.x) * num_codebooks;
  if (running) finish_step(state, num_codebooks, vocab, ids);
  for (std::int32_t k = 0; k < num_codebooks; ++k) {
    if (running) last[k] = ids[k];
    out[k] = last[k];
  }
  arguments.flags[blockIdx.x] =
      static_cast<std::uint8_t>((state.finished ? 1 : 0) | (state.failed ? 2 : 0));
}

}  // namespace

cudaError_t prepare_advance_rows(std::size_t shared_bytes) {
  return cudaFuncSetAttribute(advance_rows_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_bytes));
}

cudaError_t launch_advance_rows(const AdvanceRows& arguments, cudaStream_t stream) {
  if (arguments.num_rows == 0) return cudaSuccess;
  const std::size_t shared_bytes =
      advance_rows_shared_bytes(arguments.num_codebooks, arguments.codebook_vocab);
  advance_rows_kernel<<<static_cast<unsigned>(arguments.num_rows),
                        static_cast<unsigned>(32 * arguments.num_codebooks), shared_bytes,
                        stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace higgs_rt
