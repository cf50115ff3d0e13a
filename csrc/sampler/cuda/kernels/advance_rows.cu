#include "core/cuda/launch.cuh"
#include "sampler/advance_row.h"
#include "sampler/cuda/kernels/advance_rows.h"
#include "sampler/cuda/kernels/register_row.cuh"

namespace higgs_rt {

namespace {

// How a warp draws from the logits of its codebook: in registers, or with larger vocabularies in
// shared memory [2, vocab] of the warp.
struct InRegisters {
  static constexpr std::int32_t kMaxCodebooks = 8;  // as many registers are there

  // Words of shared memory of one codebook.
  __host__ __device__ static constexpr std::size_t words(std::int32_t) {
    return sizeof(WarpRow::Packed) / sizeof(std::int32_t);
  }
  WarpRow row;

  __device__ InRegisters(const float* logits, std::int32_t vocab, std::int32_t* shared)
      : row(logits, vocab, reinterpret_cast<WarpRow::Packed*>(shared)) {}
  __device__ void load() { row.load(); }
  __device__ std::int32_t sample(const RowState& state, std::int32_t codebook, std::int32_t vocab) {
    return sample_codebook(
        state, codebook, vocab,
        [&](const RowFilter& filter, std::uint32_t random) { return row.sample(filter, random); });
  }
};
struct InSharedMemory {
  static constexpr std::int32_t kMaxCodebooks = higgs_rt::kMaxCodebooks;

  __host__ __device__ static constexpr std::size_t words(std::int32_t vocab) {
    return 2 * static_cast<std::size_t>(vocab);
  }
  const float* logits;
  RowScratch scratch;

  __device__ InSharedMemory(const float* row, std::int32_t vocab, std::int32_t* shared)
      : logits(row), scratch{shared, reinterpret_cast<std::uint32_t*>(shared + vocab)} {}
  __device__ void load() {}
  __device__ std::int32_t sample(const RowState& state, std::int32_t codebook, std::int32_t vocab) {
    return sample_codebook(WarpLanes{}, state, codebook, logits, vocab, scratch);
  }
};

static_assert(sizeof(RowState) % sizeof(std::uint32_t) == 0);
constexpr unsigned kStateWords = sizeof(RowState) / sizeof(std::uint32_t);

// Starts copying a state to shared memory; the threads meet in finish_copy().
__device__ void start_copy(RowState* to, const RowState* from) {
  for (unsigned i = threadIdx.x; i < kStateWords; i += blockDim.x) {
    const auto word = static_cast<std::uint32_t>(__cvta_generic_to_shared(to)) + 4 * i;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(word),
                 "l"(reinterpret_cast<const std::uint32_t*>(from) + i));
  }
}
__device__ void finish_copy() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
}
__device__ void copy_back(RowState* to, const RowState* from) {
  for (unsigned i = threadIdx.x; i < kStateWords; i += blockDim.x) {
    reinterpret_cast<std::uint32_t*>(to)[i] = reinterpret_cast<const std::uint32_t*>(from)[i];
  }
}

// One block per row, one warp per codebook. The row's state is in shared memory meanwhile; it and
// the logits are fetched side by side.
template <class Row>
__global__ void __launch_bounds__(32 * Row::kMaxCodebooks)
    advance_rows_kernel(AdvanceRows arguments) {
  extern __shared__ std::int32_t scratch[];
  __shared__ std::int32_t ids[kMaxCodebooks];
  __shared__ alignas(RowState) std::byte state_memory[sizeof(RowState)];
  grid_wait();  // first: the row numbers may come from a kernel just ahead (core/cuda/copy_words.h)
  const std::int32_t row = arguments.rows[blockIdx.x];
  grid_launch_next();
  if (row < 0) return;  // padding
  const std::int32_t num_codebooks = arguments.num_codebooks;
  const std::int32_t vocab = arguments.codebook_vocab;
  const auto codebook = static_cast<std::int32_t>(threadIdx.x / 32u);
  const auto which = static_cast<std::size_t>(blockIdx.x) * num_codebooks + codebook;
  Row logits(arguments.logits + which * vocab, vocab, scratch + Row::words(vocab) * codebook);
  RowState& state = *reinterpret_cast<RowState*>(state_memory);
  start_copy(&state, arguments.states + row);
  logits.load();
  finish_copy();

  std::int32_t* last = arguments.last_columns + static_cast<std::size_t>(row) * num_codebooks;
  const std::uint32_t turn = state.turn;
  const bool running = !state.finished;
  if (running) {
    const LiveRange live = live_range(state.stream, state.params.rule, num_codebooks);
    if (codebook >= live.first && codebook < live.last) {
      const std::int32_t id = logits.sample(state, codebook, vocab);
      if (threadIdx.x % 32u == 0) ids[codebook] = id;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      finish_step(state, num_codebooks, vocab, ids);
      state.turn = turn + 1;
    }
    __syncthreads();
    copy_back(arguments.states + row, &state);
  } else if (threadIdx.x == 0) {
    arguments.states[row].turn = turn + 1;
  }
  const auto place = static_cast<std::size_t>(turn % 2) * arguments.max_rows + row;
  std::int32_t* out = arguments.results + place * (num_codebooks + 1);
  const auto index = static_cast<std::int32_t>(threadIdx.x);
  if (index > num_codebooks) return;
  std::int32_t value = (state.finished ? 1 : 0) | (state.failed ? 2 : 0);
  if (index < num_codebooks) {
    value = running ? ids[index] : last[index];
    last[index] = value;
  }
  out[index] = value;  // of one warp and side by side: few transactions on the way to the host
}

}  // namespace

cudaError_t prepare_advance_rows(std::size_t block_bytes, std::size_t& usable) {
  const auto kernel = advance_rows_kernel<InSharedMemory>;
  cudaFuncAttributes attributes{};
  const cudaError_t result = cudaFuncGetAttributes(&attributes, kernel);
  if (result != cudaSuccess) return result;
  usable = block_bytes - attributes.sharedSizeBytes;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(usable));
}

cudaError_t launch_advance_rows(const AdvanceRows& arguments, cudaStream_t stream) {
  if (arguments.num_rows == 0) return cudaSuccess;
  const std::int32_t codebooks = arguments.num_codebooks, vocab = arguments.codebook_vocab;
  const bool small = vocab <= kMaxRegisterVocab && codebooks <= InRegisters::kMaxCodebooks;
  const std::size_t words = small ? InRegisters::words(vocab) : InSharedMemory::words(vocab);
  return launch(small ? advance_rows_kernel<InRegisters> : advance_rows_kernel<InSharedMemory>,
                static_cast<unsigned>(arguments.num_rows), static_cast<unsigned>(32 * codebooks),
                words * sizeof(std::int32_t) * static_cast<std::size_t>(codebooks), stream,
                arguments);
}

}  // namespace higgs_rt
