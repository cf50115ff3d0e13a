// Convolutions as matrix products on the tensor cores: times x (channels, taps) by (channels, taps)
// x outputs. A block takes kBlockM times of the items laid end to end and kBlockN outputs; it loads
// the times of one chunk of channels once and shifts them by rows from tap to tap.
#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/half_codec.h"
#include "ops/cuda/kernels/half_mma.cuh"

namespace higgs_rt {

namespace {

constexpr int kThreads = 128;
constexpr int kStages = 3;  // weights of steps under way

template <int kTapsOf, int kChunkOf, int kBlockNOf>
struct Shape {
  static constexpr int kTaps = kTapsOf, kChunk = kChunkOf, kBlockN = kBlockNOf;
  static constexpr int kBlockM = kBlockN == 128 ? 128 : 256;
  static constexpr int kWarpsN = kBlockN == 128 ? 2 : 1;
  static constexpr int kWarpM = 64, kWarpN = kBlockN / kWarpsN;
  static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
  // Copies run kStages - 1 steps ahead of the products.
  static constexpr int kBuffers = (kStages - 1 + kTaps - 1) / kTaps + 1;
  static constexpr int kWeightBytes = kBlockN * kChunk * 2;

  static __host__ __device__ int tile_rows(int dilation) {
    return (kBlockM + (kTaps - 1) * dilation + 7) / 8 * 8;
  }
  static __host__ __device__ int buffers(int chunks) {
    return chunks < kBuffers ? chunks : kBuffers;
  }
  static std::size_t shared_bytes(const HalfConv& conv) {
    const int rows = tile_rows(conv.dilation) * buffers(conv.channels / kChunk);
    return static_cast<std::size_t>(rows * kChunk * 2 + kStages * kWeightBytes);
  }
};

// Where a block is, and where its tiles lie in shared memory.
struct Place {
  int total;  // times of all items
  int first;  // first of this block's
  int phase;
  int output;  // first output
  int shift;   // of the first tap
  std::uint32_t x, weights;
};

template <class S>
__device__ void load_times(const HalfConv& conv, const Place& place, int chunk) {
  using Tile = HalfTile<S::kChunk>;
  const int rows = S::tile_rows(conv.dilation);
  const std::uint32_t buffer =
      place.x + chunk % S::kBuffers * static_cast<std::uint32_t>(rows * Tile::kRowBytes);
  const bool dense = conv.in_rows == conv.rows;
  for (int i = threadIdx.x; i < rows * Tile::kPieces; i += kThreads) {
    const int row = i / Tile::kPieces, piece = i % Tile::kPieces;
    const int time = place.first + place.shift + row;
    const bool exists = time >= 0 && time < place.total;
    int from = exists ? time : 0;
    if (!dense) from = from / conv.rows * conv.in_rows + from % conv.rows + conv.in_begin;
    const __half* source =
        conv.x + static_cast<std::size_t>(from) * conv.channels + chunk * S::kChunk + piece * 8;
    copy_async(buffer + Tile::offset(row, piece), source, exists);
  }
}

// Step: a chunk of channels and a tap. The times of a chunk come with its first tap.
template <class S>
__device__ void load_step(const HalfConv& conv, const Place& place, int step) {
  using Tile = HalfTile<S::kChunk>;
  const int steps = conv.channels / S::kChunk * S::kTaps;
  if (step < steps) {
    if (step % S::kTaps == 0) load_times<S>(conv, place, step / S::kTaps);
    const std::size_t block = static_cast<std::size_t>(place.phase) * steps + step;
    const __half* source = conv.weight + (block * conv.outputs + place.output) * S::kChunk;
    const std::uint32_t buffer = place.weights + step % kStages * S::kWeightBytes;
#pragma unroll
    for (int i = threadIdx.x; i < S::kBlockN * Tile::kPieces; i += kThreads) {
      copy_async(buffer + Tile::offset(i / Tile::kPieces, i % Tile::kPieces), source + i * 8, true);
    }
  }
  copy_commit();
}

__device__ float snake(float x, float alpha, float scale) {
  const float s = __sinf(alpha * x);
  return fmaf(s * s, scale, x);
}

__device__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ void store_activated(const HalfConv& conv, std::size_t at, int channel, float4 v) {
  if (conv.snake.alpha != nullptr) {
    const float4 alpha = load4(conv.snake.alpha + channel);
    const float4 scale = load4(conv.snake.scale + channel);
    v = {snake(v.x, alpha.x, scale.x), snake(v.y, alpha.y, scale.y), snake(v.z, alpha.z, scale.z),
         snake(v.w, alpha.w, scale.w)};
  }
  const __half2 halves[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
  *reinterpret_cast<uint2*>(conv.activated + at) = *reinterpret_cast<const uint2*>(halves);
}

// One row of one warp's tile: this thread's channels, four in each group of 16.
template <class S>
struct OutputRow {
  bool exists = false, valid = false;
  std::size_t at = 0;
  float4 residual[S::kTilesN / 2];

  __device__ void load(const HalfConv& conv, const Place& place, int row, int channel) {
    const int time = place.first + row;
    exists = time < place.total;
    if (!exists) return;
    const int item = time / conv.rows;
    const int when = conv.out_begin + (time - item * conv.rows) * conv.phases + place.phase;
    const int2 frames = conv.batch.valid[item];
    valid = when >= frames.x * conv.rate && when < frames.y * conv.rate;
    at = (static_cast<std::size_t>(time) * conv.phases + place.phase) * conv.outputs + channel;
#pragma unroll
    for (int g = 0; g < S::kTilesN / 2; ++g) {
      residual[g] = conv.residual == nullptr ? float4{} : load4(conv.residual + at + g * 16);
    }
  }

  __device__ void store(const HalfConv& conv, int channel, int g, float a, float b, float c,
                        float d) const {
    if (!exists) return;
    const float4 bias = load4(conv.bias + channel + g * 16), r = residual[g];
    float4 v = {a + bias.x + r.x, b + bias.y + r.y, c + bias.z + r.z, d + bias.w + r.w};
    if (!valid) v = float4{};
    if (conv.out != nullptr) *reinterpret_cast<float4*>(conv.out + at + g * 16) = v;
    store_activated(conv, at + g * 16, channel + g * 16, v);
  }
};

template <class S>
__device__ void write_tile(const HalfConv& conv, const Place& place, int warp_m, int warp_n,
                           const float (&sum)[S::kTilesM][S::kTilesN][4]) {
  const int lane = threadIdx.x % 32;
  const int channel = place.output + warp_n + lane % 4 * 4;
#pragma unroll
  for (int m = 0; m < S::kTilesM; ++m) {
    OutputRow<S> rows[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      rows[h].load(conv, place, warp_m + m * 16 + h * 8 + lane / 4, channel);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int g = 0; g < S::kTilesN / 2; ++g) {
        rows[h].store(conv, channel, g, sum[m][2 * g][2 * h], sum[m][2 * g][2 * h + 1],
                      sum[m][2 * g + 1][2 * h], sum[m][2 * g + 1][2 * h + 1]);
      }
    }
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, 2) half_conv_kernel(HalfConv conv) {
  extern __shared__ __align__(128) unsigned char shared[];
  grid_wait();
  const int chunks = conv.channels / S::kChunk, steps = chunks * S::kTaps;
  const int tiles_n = conv.outputs / S::kBlockN;
  const int rows = S::tile_rows(conv.dilation);
  Place place;
  place.total = *conv.batch.count * conv.rows;
  place.first = blockIdx.x * S::kBlockM;
  if (place.first >= place.total) return;
  place.phase = blockIdx.y / tiles_n;
  place.output = blockIdx.y % tiles_n * S::kBlockN;
  place.shift = S::kTaps == 2 ? (place.phase + conv.padding) / conv.phases - 1 : -conv.padding;
  place.x = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  place.weights = place.x + S::buffers(chunks) * rows * S::kChunk * 2;

  const int warp = threadIdx.x / 32;
  const int warp_m = warp / S::kWarpsN * S::kWarpM, warp_n = warp % S::kWarpsN * S::kWarpN;
  float sum[S::kTilesM][S::kTilesN][4] = {};
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) load_step<S>(conv, place, step);
  for (int step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();
    __syncthreads();  // what step - 1 read may be overwritten now
    load_step<S>(conv, place, step + kStages - 1);
    const int chunk = step / S::kTaps, tap = step % S::kTaps;
    multiply_tiles<S::kChunk>(place.x + chunk % S::kBuffers * rows * S::kChunk * 2,
                              warp_m + tap * conv.dilation,
                              place.weights + step % kStages * S::kWeightBytes, warp_n, sum);
  }
  write_tile<S>(conv, place, warp_m, warp_n, sum);
}

template <class S>
cudaError_t launch_shape(const HalfConv& conv, cudaStream_t stream) {
  const std::int64_t times = static_cast<std::int64_t>(conv.batch.max_items) * conv.rows;
  const dim3 grid(static_cast<unsigned>((times + S::kBlockM - 1) / S::kBlockM),
                  static_cast<unsigned>(conv.phases * (conv.outputs / S::kBlockN)));
  return launch(half_conv_kernel<S>, grid, kThreads, S::shared_bytes(conv), stream, conv);
}

template <int kTaps, int kChunk, class Use>
cudaError_t with_outputs(std::int32_t outputs, const Use& use) {
  if (outputs % 128 == 0) return use(Shape<kTaps, kChunk, 128>{});
  if (outputs % 64 == 0) return use(Shape<kTaps, kChunk, 64>{});
  if (outputs % 32 == 0) return use(Shape<kTaps, kChunk, 32>{});
  return cudaErrorInvalidValue;
}

template <int kTaps, class Use>
cudaError_t with_channels(std::int32_t channels, std::int32_t outputs, const Use& use) {
  if (channels % 64 == 0) return with_outputs<kTaps, 64>(outputs, use);
  if (channels % 32 == 0) return with_outputs<kTaps, 32>(outputs, use);
  return cudaErrorInvalidValue;
}

// Calls `use` with the Shape for these sizes.
template <class Use>
cudaError_t with_shape(std::int32_t taps, std::int32_t channels, std::int32_t outputs,
                       const Use& use) {
  if (taps == 7) return with_channels<7>(channels, outputs, use);
  if (taps == 2) return with_channels<2>(channels, outputs, use);
  if (taps == 1) return with_channels<1>(channels, outputs, use);
  return cudaErrorInvalidValue;
}

std::int32_t chunk_of(std::int32_t channels) { return channels % 64 == 0 ? 64 : 32; }

// Thread q of four holds columns 2q and 2q + 1 of two neighbouring products: place p of 16 holds
// the output that makes its four consecutive.
std::int64_t output_at(std::int64_t place) {
  const std::int64_t p = place % 16, tile = p / 8, column = p % 8;
  return place - p + column / 2 * 4 + tile * 2 + column % 2;
}

}  // namespace

cudaError_t launch_half_conv(const HalfConv& conv, cudaStream_t stream) {
  return with_shape(conv.taps, conv.channels, conv.outputs,
                    [&](auto shape) { return launch_shape<decltype(shape)>(conv, stream); });
}

cudaError_t prepare_half_conv() {
  constexpr int kBytes = 128 * 1024;  // what the widest of shared_bytes() needs
  for (const int taps : {7, 2, 1}) {
    for (const int channels : {64, 32}) {
      for (const int outputs : {128, 64, 32}) {
        const cudaError_t result = with_shape(taps, channels, outputs, [&](auto shape) {
          return cudaFuncSetAttribute(half_conv_kernel<decltype(shape)>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
        });
        if (result != cudaSuccess) return result;
      }
    }
  }
  return cudaSuccess;
}

// [chunk][tap][place of output][channel in chunk]
std::vector<__half> pack_half_conv(const float* weight, std::int64_t outputs, std::int64_t channels,
                                   std::int64_t taps) {
  const std::int64_t wide = half_channels(channels), high = half_channels(outputs);
  const std::int64_t chunk = chunk_of(static_cast<std::int32_t>(wide));
  std::vector<__half> packed(static_cast<std::size_t>(wide * high * taps), __float2half(0.0F));
  std::size_t at = 0;
  for (std::int64_t first = 0; first < wide; first += chunk) {
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      for (std::int64_t place = 0; place < high; ++place) {
        const std::int64_t o = output_at(place);
        for (std::int64_t c = first; c < first + chunk; ++c, ++at) {
          if (o >= outputs || c >= channels) continue;
          packed[at] = __float2half(weight[(o * channels + c) * taps + tap]);
        }
      }
    }
  }
  return packed;
}

// Of each phase: its two taps as an ordinary convolution, the later tap first because it reads the
// earlier time.
std::vector<__half> pack_half_conv_transpose(const float* weight, std::int64_t outputs,
                                             std::int64_t channels, std::int64_t stride) {
  const std::int64_t padding = (stride + 1) / 2;
  std::vector<__half> packed;
  std::vector<float> phase_weight(static_cast<std::size_t>(outputs * channels * 2));
  for (std::int64_t phase = 0; phase < stride; ++phase) {
    const std::int64_t tap = (phase + padding) % stride;
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float* from = weight + (c * outputs + o) * 2 * stride;
        float* to = phase_weight.data() + (o * channels + c) * 2;
        to[0] = from[tap + stride];
        to[1] = from[tap];
      }
    }
    const std::vector<__half> part = pack_half_conv(phase_weight.data(), outputs, channels, 2);
    packed.insert(packed.end(), part.begin(), part.end());
  }
  return packed;
}

}  // namespace higgs_rt
