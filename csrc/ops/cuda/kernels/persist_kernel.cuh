// One kernel for a decode step.
//
// A block has a multiprocessor to itself for the whole step; blocks work in pairs (clusters) that
// share the inputs of an output, as in stream_kernel.cuh. Weights come through queues that run on
// over stages and layers, so that the memory works while blocks wait for each other's results,
// which they exchange through cells (persist_mail.cuh). Activations go from the cells into
// registers, so that the queue has all of the shared memory. The residual stream stays with the
// blocks that add to it.
#pragma once

#include "core/cuda/launch.cuh"
#include "ops/cuda/kernels/persist_attention.cuh"
#include "ops/cuda/kernels/persist_stage.cuh"

namespace higgs_rt::persist {

// state: [0] launches so far, [1 + set] rows of the last launch that used the set.
__device__ inline Block make_block(const PersistStep& step, unsigned char* memory) {
  const std::int64_t row_bytes = std::int64_t{step.num_layers + 1} * kLayerBytes;
  Block block{step, {step.cells, row_bytes}};
  block.sums = reinterpret_cast<float*>(memory + Places::kSums);
  block.inbox = reinterpret_cast<float*>(memory + Places::kInbox);
  block.residual = reinterpret_cast<float*>(memory + Places::kResidual);
  block.scale = reinterpret_cast<float*>(memory + Places::kScale);
  block.arrivals = reinterpret_cast<Arrival*>(memory + Places::kArrivals);
  block.scaled = shared_address(memory + Places::kScaled);
  block.applied = shared_address(memory + Places::kApplied);
  block.unit = memory + Places::kUnit;
  block.rank = stream::cluster_rank();
  block.norms = memory + Places::kNormPlace;
  block.cluster = static_cast<int>(blockIdx.x) / kCluster;
  block.rows = step.rows;
  const int own = min(step.rows - static_cast<int>(block.rank) * Block::kShare, Block::kShare);
  block.sum_bytes = kCluster * (own > 0 ? own * 64 : 16);
  return block;
}

// The norms' weights for the block's tiles of the residual stream.
__device__ inline void fetch_norms(const Block& block) {
  const PersistStep& step = block.step;
  const int words = (2 * step.num_layers + 1) * kOwnTiles * 8;
  for (int i = static_cast<int>(threadIdx.x); i < words; i += kThreads) {
    const int norm = i / (kOwnTiles * 8), own = i / 8 % kOwnTiles, layer = norm / 2;
    const bf16* from = layer == step.num_layers ? step.final_norm
                       : norm % 2 == 0          ? step.layers[layer].input_norm
                                                : step.layers[layer].post_norm;
    const int at = (block.cluster + own * kClusters) * 8 + i % 8;
    reinterpret_cast<std::uint32_t*>(block.norms)[i] =
        __ldg(reinterpret_cast<const std::uint32_t*>(from) + at);
  }
}

// What a warp's lanes need to write results of qkv: the angles of two pairs, always the same ones
// of a head.
__device__ inline void fetch_row(Block& block) {
  static_assert(kClusters % 8 == 0);
  const Place place(block);
  if (!place.active) return;
  const int position = block.step.position[place.row], i = block.cluster % 8 * 8 + 2 * place.j;
  block.turn = make_float4(1, 0, 1, 0);
  if (position < 0) return;
  block.turn = __ldg(reinterpret_cast<const float4*>(block.step.rope +
                                                     std::int64_t{position} * Shape::kDim + 2 * i));
}

// The embedded rows become the residual stream.
__device__ inline void put_embedded(const Block& block) {
  const Place place(block);
#pragma unroll
  for (int own = 0; own < kOwnTiles; ++own) {
    float2 low = make_float2(0, 0), high = low;
    if (place.active) {
      const float* from = block.step.hidden + std::int64_t{place.row} * Shape::kHidden +
                          (block.cluster + own * kClusters) * 16 + 2 * place.j;
      low = __ldcg(reinterpret_cast<const float2*>(from));
      high = __ldcg(reinterpret_cast<const float2*>(from + 8));
      float* at = block.residual + (own * Block::kShare + place.local) * 16 + 2 * place.j;
      *reinterpret_cast<float2*>(at) = low;
      *reinterpret_cast<float2*>(at + 8) = high;
    }
    publish(block, place, 0, kInputCells, kInputSquares, 0, own, low, high);
  }
}

// Clears a part of the other set's rows: every block and layer another one.
__device__ inline void clear_cells(const Block& block, unsigned char* other, int rows, int layer) {
  const std::int64_t cells = rows * block.mail.row_bytes / 16;
  const std::int64_t stride = std::int64_t{block.step.num_layers} * gridDim.x * kThreads;
  std::int64_t i = (std::int64_t{layer} * gridDim.x + blockIdx.x) * kThreads + threadIdx.x;
  for (; i < cells; i += stride) {
    reinterpret_cast<uint4*>(other)[i] = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
  }
}

// Brings the next layer's cells into the L2 cache, every block others of them: whoever looks for a
// number first would wait for memory otherwise.
__device__ inline void touch_cells(const Block& block, int layer) {
  static_assert(kLayerBytes % 128 == 0);
  const int lines = block.rows * (kLayerBytes / 128);
  for (int i = static_cast<int>(threadIdx.x * gridDim.x + blockIdx.x); i < lines;
       i += kThreads * static_cast<int>(gridDim.x)) {
    const int row = i / (kLayerBytes / 128), line = i % (kLayerBytes / 128);
    asm volatile("prefetch.global.L2 [%0];" ::"l"(block.mail.cell(row, layer + 1, line * 128)));
  }
}

// Chooses this launch's cells; returns how many launches there were.
__device__ inline std::uint32_t open_mail(Block& block) {
  const std::uint32_t launch = read_word(reinterpret_cast<unsigned char*>(block.step.state));
  block.mail.base += launch % 2 * kRows * block.mail.row_bytes;
  return launch;
}

// What the warps do that do not multiply.
__device__ inline void help(Block& block, const Ring& ring, int warp) {
  if (warp == 0) {
    feed(block.step, ring, block.cluster, static_cast<int>(block.rank));
    return;
  }
  grid_wait();
  open_mail(block);
  put_scales(block, warp - 1);
}

__device__ inline void work(Block& block, Queue& queue) {
  const PersistStep& step = block.step;
  const std::uint32_t launch = open_mail(block), set = launch % 2;
  unsigned char* other = step.cells + (1 - set) * kRows * block.mail.row_bytes;
  const int other_rows = static_cast<int>(
      read_word(reinterpret_cast<const unsigned char*>(step.state) + 4 * (2 - set)));
  block.tag = launch * kPersistLayers + 1;
  fetch_row(block);
  if (threadIdx.x < 32) put_embedded(block);
  if (threadIdx.x == 0) *unit_of(block) = Unit(block);
  sync_warps();
#pragma unroll 1
  for (int product = 0; product <= 4 * step.num_layers; ++product) {
    // As if they changed: what depends on them is not kept in registers over the loop, which would
    // be spilt.
    asm volatile("" : "+r"(block.rank), "+l"(block.unit));
    const int layer = product / 4, kind = layer == step.num_layers ? int{kHead} : product % 4;
    if (kind == kQkv && block.rows <= kAheadRows) prefetch_tiles(*unit_of(block), step, layer, 0);
    static_assert(chunks_of(kQkv) == kPieceChunks);  // and of all but down
    if (kind == kDown) {
      run_stage<chunks_of(kDown)>(block, queue, kind, layer);
    } else {
      run_stage<kPieceChunks>(block, queue, kind, layer);
    }
    if (kind != kQkv) continue;
    run_attention(block, layer);
    clear_cells(block, other, other_rows, layer);
    touch_cells(block, layer);
  }
  // Nobody can be here before every block has read the state: the head needs all of them.
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    step.state[0] = launch + 1;
    step.state[1 + set] = static_cast<std::uint32_t>(step.rows);
  }
}

__global__ void __launch_bounds__(kThreads + kHelpers, 1)
    persist_kernel(const __grid_constant__ PersistStep step) {
  extern __shared__ __align__(128) unsigned char memory[];
  Block block = make_block(step, memory);
  const std::uint32_t shared = shared_address(memory);
  const Ring ring{shared, shared + Places::kFull};
  if (threadIdx.x == 0) {
    init_barrier(block.scaled, min(kScalers, block.rows));
    init_barrier(block.applied, kThreads);
    ring.init();
    for (int i = 0; i < kInboxes; ++i) {
      stream::init_arrival(block.arrivals + i);
      stream::expect_arrival(block.arrivals + i, block.sum_bytes);
    }
  }
  __syncthreads();
  if (threadIdx.x >= kThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    // At once: racecheck lets all threads of the cluster meet again behind this wait (docs/gpu.md).
    stream::cluster_start();
    help(block, ring, static_cast<int>(threadIdx.x - kThreads) / 32);
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
  fetch_norms(block);
  stream::cluster_start();
  sync_warps();
  Queue queue{ring};
  grid_wait();
  work(block, queue);
}

}  // namespace higgs_rt::persist
