// Compiled for compute capability 9.0 with its own instructions (sm_90a) only; see CMakeLists.txt.
#include <tuple>

#include "ops/cuda/kernels/half_block.cuh"
#include "ops/cuda/kernels/half_group.h"

namespace higgs_rt {

namespace {

// One block of threads at work.
template <class S>
struct BlockWork {
  const HalfBlock& block;
  unsigned char* const memory;
  const std::uint32_t shared;
  BlockPlace<S> place = {};
  unsigned exists = 0;
  float x[S::kTiles][S::kOut / 8][4];  // the residual stream

  __device__ BlockWork(const HalfBlock& args, unsigned char* bytes)
      : block(args),
        memory(bytes),
        shared(static_cast<std::uint32_t>(__cvta_generic_to_shared(bytes))) {
    place.total = *block.batch.count * block.rows * S::kRatio;
    place.begin = first_time(block.batch, place.total, S::kKept) - S::kHalo;
    place.warp = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 32, 0);  // known to be the same in a warp
    place.lane = threadIdx.x % 32;
  }

  __device__ std::uint32_t barrier(int stage) const { return shared + S::kBarriers + stage * 8; }
  __device__ const float* numbers(int at) const {
    return reinterpret_cast<const float*>(memory + at);
  }
  __device__ HalfSnake snake_at(int at) const { return {numbers(at), numbers(at) + S::kOut}; }
  // By one thread.
  __device__ void ask(int stage) const {
    copy_bulk(shared + S::stage_at(stage), block.weights + S::stage_from(stage),
              S::stage_bytes(stage), barrier(stage));
  }
  __device__ void ask_first() const {
    if (threadIdx.x != 0) return;
    for (int stage = 0; stage < S::kStages; ++stage) init_barrier(barrier(stage), 1);
    publish_barriers();
    fence_async_proxy();
    for (int stage = 0; stage < S::kStages; ++stage) {
      if (S::kResident || stage < 2 || stage > kUnits) ask(stage);
    }
  }

  __device__ void up_sample() {
    const int w = S::stage_at(0);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      take_bias<false>(numbers(w + S::kUpFactors), x[m]);
      hold(x[m]);
    }
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      const int phase = place.phase(m);
      // The first tap's row: one before, or the same (padding ceil(ratio / 2)).
      const int row = place.index(m) + (phase + (S::kRatio + 1) / 2) / S::kRatio;
      add_products<S::kChunk, 2, S::kIn, S::kInRows * S::kChunk * 2>(
          shared + place.index() * S::kChunk * 2, shared + w + phase * (2 * S::kIn * S::kOut * 2),
          NextRows{row}, x[m]);
    }
    finish_rows();
  }

  // Waits for all products of x.
  __device__ void finish_rows() {
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      group_wait<0>(x[m]);
      if ((exists >> (2 * m) & 3) != 3) keep_existing(exists >> (2 * m), x[m]);
    }
  }

  // kSums tiles at once: while the products of one go on, another one's snakes are computed.
  __device__ void run_unit(int stage, int dilation) {
    const int w = S::stage_at(stage), bias = w + S::kWide + S::kPoint + 2 * S::kOut * 4;
    const HalfSnake between = snake_at(bias + S::kOut * 4);
    constexpr int kSums = S::kSums;
    float sum[kSums][S::kOut / 8][4];
    std::uint32_t a[kSums][S::kOut / 16][4];
#pragma unroll
    for (int first = 0; first < S::kTiles; first += kSums) {
#pragma unroll
      for (int m = 0; m < kSums; ++m) {
        take_bias<false>(numbers(bias), sum[m]);
        add_products<S::kOut, kTaps, S::kOut, 0>(
            shared + place.index() * S::kOut * 2, shared + w,
            DilatedRows<S>(place.phase(first + m), place.index(first + m), dilation), sum[m]);
      }
#pragma unroll
      for (int m = 0; m < kSums; ++m) {
        group_wait<kSums - 1>(sum[m]);
        take_bias<true>(numbers(bias) + 3 * S::kOut, x[first + m]);
        activate_sums(between, sum[m], a[m]);
        multiply_point(w + S::kWide, a[m], x[first + m]);
      }
    }
    finish_rows();
  }

  // fp16(snake(sum)) as factors of a product.
  __device__ void activate_sums(const HalfSnake& of, const float (&sum)[S::kOut / 8][4],
                                std::uint32_t (&a)[S::kOut / 16][4]) const {
#pragma unroll
    for (int g = 0; g < S::kOut / 16; ++g) {
      const SnakeOfFour snake(of, g * 16 + place.lane % 4 * 4);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint2 v = activate(snake, four_sums(sum, g, h));
        a[g][h] = v.x;
        a[g][2 + h] = v.y;
      }
    }
  }

  __device__ void multiply_point(int w, const std::uint32_t (&a)[S::kOut / 16][4],
                                 float (&to)[S::kOut / 8][4]) const {
    group_begin(to);
#pragma unroll
    for (int g = 0; g < S::kOut / 16; ++g) {
      multiply_group(a[g], group_factors(shared + w + g * 2 * S::kOut * 16, S::kOut), to);
    }
    end_products();
  }

  // fp16(snake(x)) to the rows in shared memory.
  __device__ void store_rows(const HalfSnake& of) {
    // Steps of eight rows do not change key(): one offset serves all.
    const int quad = place.lane % 4;
    const int first = S::kGuard + place.index() + place.warp % 4 * 16 + place.lane / 4;
    const std::uint32_t at = S::Times::offset(first, quad / 2) + quad % 2 * 8;
#pragma unroll
    for (int g = 0; g < S::kOut / 16; ++g) {
      const SnakeOfFour snake(of, g * 16 + quad * 4);
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int rows = place.phase(m) * S::kPlane + m / S::kRatio * 64 + h * 8;
          *reinterpret_cast<uint2*>(memory + (at ^ g << 5) + rows * S::Times::kRowBytes) =
              activate(snake, four_sums(x[m], g, h));
        }
      }
    }
  }

  __device__ void take_unit(int unit, int dilation) {
    wait_barrier(barrier(1 + unit), 0);
    __syncthreads();  // all have read the rows, and the weights before these
    if (!S::kResident && unit + 1 < kUnits && threadIdx.x == 0) ask(2 + unit);
    store_rows(snake_at(S::stage_at(1 + unit) + S::kWide + S::kPoint));
    fence_async_proxy();
    __syncthreads();
    run_unit(1 + unit, dilation);
  }

  // The same to the output, rows that are kept.
  __device__ void write_rows(const HalfSnake& of) {
#pragma unroll
    for (int g = 0; g < S::kOut / 16; ++g) {
      const int channel = g * 16 + place.lane % 4 * 4;
      const SnakeOfFour snake(of, channel);
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = place.row(m, h), at = place.begin + row;
          if (!is_kept(row)) continue;
          *reinterpret_cast<uint2*>(block.activated + static_cast<std::size_t>(at) * S::kOut +
                                    channel) = activate(snake, four_sums(x[m], g, h));
        }
      }
    }
  }

  // The last convolution, as products with two columns of weights: fp16, and what that leaves out.
  __device__ void write_pcm() {
    const int w = S::stage_at(kUnits + 1) + 2 * S::kOut * 4;
    float sum[S::kTiles][1][4] = {};
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) hold(sum[m]);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      add_products<S::kOut, kTaps, S::kOut, 0>(shared + place.index() * S::kOut * 2, shared + w,
                                               DilatedRows<S>(place.phase(m), place.index(m), 1),
                                               sum[m]);
    }
    const float bias = *numbers(w + S::kLastFactors);
    const Divider made(block.rows * S::kRatio);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      group_wait<0>(sum[m]);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = place.row(m, h), at = place.begin + row;
        if (place.lane % 4 != 0 || !is_kept(row)) continue;
        const int item = made.quotient(at);
        const int sample = at - item * made.by - block.last_begin - kTaps / 2;
        if (sample < 0 || sample >= block.samples) continue;
        block.pcm[static_cast<std::size_t>(item) * block.samples + sample] =
            sum[m][0][2 * h] + sum[m][0][2 * h + 1] + bias;
      }
    }
  }

  __device__ bool is_kept(int row) const {
    return row >= S::kHalo && row < S::kHalo + S::kKept && place.begin + row < place.total;
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) half_block_kernel(HalfBlock block) {
  extern __shared__ __align__(1024) unsigned char memory[];
  BlockWork<S> work(block, memory);
  const bool has_rows = work.place.begin + S::kHalo < work.place.total;
  if (has_rows) work.ask_first();
  grid_wait();
  grid_launch_next();
  if (!has_rows) return;
  load_inputs(block, work.place, work.shared);
  work.exists = existing_rows(block, work.place);
  copy_async_wait<0>();
  fence_async_proxy();
  __syncthreads();
  wait_barrier(work.barrier(0), 0);
  work.up_sample();
#pragma unroll 1
  for (int unit = 0, dilation = 1; unit < kUnits; ++unit, dilation *= 3) {
    work.take_unit(unit, dilation);
  }
  wait_barrier(work.barrier(kUnits + 1), 0);
  const HalfSnake after = work.snake_at(S::stage_at(kUnits + 1));
  if constexpr (S::kLast) {
    __syncthreads();
    work.store_rows(after);
    fence_async_proxy();
    __syncthreads();
    work.write_pcm();
  } else {
    work.write_rows(after);
  }
}

// Calls `use` with the BlockShape for these sizes.
template <class Use>
cudaError_t with_block(std::int32_t channels, std::int32_t outputs, bool last, const Use& use) {
  if (!last && channels == 128 && outputs == 64) return use(BlockShape<128, 64, 2, 4, 2, false>{});
  if (last && channels == 64 && outputs == 32) return use(BlockShape<64, 32, 3, 4, 3, true>{});
  if (last && channels == 32 && outputs == 32) return use(BlockShape<32, 32, 3, 4, 3, true>{});
  return cudaErrorInvalidValue;
}

}  // namespace

bool half_block_fits(std::int32_t channels, std::int32_t outputs, std::int32_t ratio, bool last) {
  const bool fits = with_block(channels, outputs, last, [&](auto shape) {
                      return shape.kRatio == ratio ? cudaSuccess : cudaErrorInvalidValue;
                    }) == cudaSuccess;
  return fits && half_group_takes(kGroupChannels, kGroupOutputs);
}

cudaError_t launch_half_block(const HalfBlock& block, std::int32_t channels, std::int32_t outputs,
                              cudaStream_t stream) {
  return with_block(channels, outputs, block.pcm != nullptr, [&](auto shape) {
    using S = decltype(shape);
    const std::int64_t made =
        static_cast<std::int64_t>(block.batch.max_items) * block.rows * S::kRatio;
    const dim3 grid(static_cast<unsigned>((made + S::kKept - 1) / S::kKept));
    return launch_half(block.batch, half_block_kernel<S>, grid, S::kThreads, S::kShared, stream,
                       block);
  });
}

cudaError_t prepare_half_block() {
  if (!half_group_takes(kGroupChannels, kGroupOutputs)) return cudaSuccess;
  for (const auto& [channels, outputs, last] :
       {std::tuple{128, 64, false}, {64, 32, true}, {32, 32, true}}) {
    const cudaError_t result = with_block(channels, outputs, last, [&](auto shape) {
      using S = decltype(shape);
      return cudaFuncSetAttribute(half_block_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  S::kShared);
    });
    if (result != cudaSuccess && result != cudaErrorInvalidValue) return result;
  }
  return cudaSuccess;
}

}  // namespace higgs_rt
