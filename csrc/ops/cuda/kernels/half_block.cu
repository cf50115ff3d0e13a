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
    place.begin = static_cast<int>(blockIdx.x) * S::kKept - S::kHalo;
    place.warp = threadIdx.x / 32;
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
    for (int stage = 0; stage < S::kStages; ++stage) init_copy_barrier(barrier(stage));
    publish_copy_barriers();
    for (int stage = 0; stage < S::kStages; ++stage) {
      if (S::kResident || stage < 2 || stage > kUnits) ask(stage);
    }
  }

  __device__ void up_sample() {
    const int w = S::stage_at(0);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      const int phase = place.phase(m);
      take_bias<false>(numbers(w + S::kUpFactors), x[m]);
      // The first tap's row: one before, or the same (padding ceil(ratio / 2)).
      const int row = place.index(m) + (phase + (S::kRatio + 1) / 2) / S::kRatio;
      add_products<typename S::Inputs, 2, S::kIn>(shared, S::kInRows * S::kChunk * 2,
                                                  shared + w + phase * (2 * S::kIn * S::kOut * 2),
                                                  NextRows{row}, x[m]);
      if ((exists >> (2 * m) & 3) != 3) keep_existing(exists >> (2 * m), x[m]);
    }
  }

  __device__ void run_unit(int stage, int dilation) {
    const int w = S::stage_at(stage), bias = w + S::kWide + S::kPoint + 2 * S::kOut * 4;
    const HalfSnake between = snake_at(bias + S::kOut * 4);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      float sum[S::kOut / 8][4];
      take_bias<false>(numbers(bias), sum);
      add_products<typename S::Times, kTaps, S::kOut>(
          shared, 0, shared + w, DilatedRows<S>(place.phase(m), place.index(m), dilation), sum);
      take_bias<true>(numbers(bias) + 3 * S::kOut, x[m]);
      std::uint32_t a[S::kOut / 16][4];
#pragma unroll
      for (int g = 0; g < S::kOut / 16; ++g) {
        const SnakeOfFour snake(between, g * 16 + place.lane % 4 * 4);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const uint2 v = activate(snake, four_sums(sum, g, h));
          a[g][h] = v.x;
          a[g][2 + h] = v.y;
        }
      }
      group_begin();
#pragma unroll
      for (int g = 0; g < S::kOut / 16; ++g) {
        const std::uint32_t at = shared + w + S::kWide + g * 2 * S::kOut * 16;
        multiply_group(a[g], group_factors(at, S::kOut), x[m]);
      }
      group_commit();
      group_wait<0>();
      if ((exists >> (2 * m) & 3) != 3) keep_existing(exists >> (2 * m), x[m]);
    }
  }

  // fp16(snake(x)) to the rows in shared memory.
  __device__ void store_rows(const HalfSnake& of) {
    // Steps of eight rows do not change key(): one offset serves all.
    const int quad = place.lane % 4, first = S::kGuard + place.index(0) + place.lane / 4;
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
          if (row < S::kHalo || row >= S::kHalo + S::kKept || at >= place.total) continue;
          *reinterpret_cast<uint2*>(block.activated + static_cast<std::size_t>(at) * S::kOut +
                                    channel) = activate(snake, four_sums(x[m], g, h));
        }
      }
    }
  }

  // The last convolution, taps one after another, channel by channel.
  __device__ void write_pcm() {
    const float* weight = numbers(S::stage_at(kUnits + 1)) + 2 * S::kOut;
    const int made = block.rows * S::kRatio;
    for (int i = threadIdx.x; i < S::kKept; i += S::kThreads) {
      const int at = place.begin + S::kHalo + i;
      if (at >= place.total) return;
      const int item = at / made, sample = at - item * made - block.last_begin - kTaps / 2;
      if (sample < 0 || sample >= block.samples) continue;
      float sum = 0;
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        const int row = S::kHalo + i + tap - kTaps / 2;
        const int place_of = row % S::kRatio * S::kPlane + S::kGuard + row / S::kRatio;
#pragma unroll
        for (int piece = 0; piece < S::kOut / 8; ++piece) {
          const uint4 eight =
              *reinterpret_cast<const uint4*>(memory + S::Times::offset(place_of, piece));
          const auto* pairs = reinterpret_cast<const __half2*>(&eight);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float2 pair = __half22float2(pairs[j]);
            const float* at_weight = weight + tap * S::kOut + piece * 8 + 2 * j;
            sum = fmaf(pair.x, at_weight[0], sum);
            sum = fmaf(pair.y, at_weight[1], sum);
          }
        }
      }
      block.pcm[static_cast<std::size_t>(item) * block.samples + sample] =
          sum + weight[kTaps * S::kOut];
    }
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) half_block_kernel(HalfBlock block) {
  extern __shared__ __align__(128) unsigned char memory[];
  BlockWork<S> work(block, memory);
  work.place.total = *block.batch.count * block.rows * S::kRatio;
  const bool has_rows = work.place.begin + S::kHalo < work.place.total;
  if (has_rows) work.ask_first();
  grid_wait();
  grid_launch_next();
  if (!has_rows) return;
  load_inputs(block, work.place, work.shared);
  work.exists = existing_rows(block, work.place);
  copy_wait<0>();
  __syncthreads();
  wait_copy(work.barrier(0));
  work.up_sample();
  for (int unit = 0, dilation = 1; unit < kUnits; ++unit, dilation *= 3) {
    wait_copy(work.barrier(1 + unit));
    __syncthreads();  // all have read the rows, and the weights before these
    if (!S::kResident && unit + 1 < kUnits && threadIdx.x == 0) work.ask(2 + unit);
    work.store_rows(work.snake_at(S::stage_at(1 + unit) + S::kWide + S::kPoint));
    __syncthreads();
    work.run_unit(1 + unit, dilation);
  }
  wait_copy(work.barrier(kUnits + 1));
  const HalfSnake after = work.snake_at(S::stage_at(kUnits + 1));
  if constexpr (S::kLast) {
    __syncthreads();
    work.store_rows(after);
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
    return launch(half_block_kernel<S>, grid, S::kThreads, S::kShared, stream, block);
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
