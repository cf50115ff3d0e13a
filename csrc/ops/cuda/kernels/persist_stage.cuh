// A stage of the persistent kernel: a matrix product and what becomes of its sums.
#pragma once

#include "ops/cuda/kernels/persist_feed.cuh"
#include "ops/cuda/kernels/stream_kernel.cuh"

namespace higgs_rt::persist {

using stream::Arrival;
using stream::kInboxes;

constexpr unsigned kAll = 0xffffffffu;
constexpr int kOwnTiles = kParts / kClusters;  // of the residual stream of a cluster
static_assert(kParts % kClusters == 0);
constexpr int kNorms = 2 * kPersistLayers + 1;
constexpr int kThreads = stream::kThreads;

// Shared memory, in bytes.
template <int kN, int kStages>
struct Places {
  static constexpr int kSumFloats = kWarps * kN * stream::kPitch;
  static constexpr int kJoinFloats = kWarps * kGroup * (Shape::kDim + 2);
  static constexpr int kSums = kStages * kPieceBytes;  // two buffers of sums; or of attention
  static constexpr int kSumsBytes =
      4 * (2 * kSumFloats > kJoinFloats ? 2 * kSumFloats : kJoinFloats);
  static constexpr int kInbox = kSums + kSumsBytes;
  static constexpr int kResidual = kInbox + kInboxes * kN * 64;  // fp32 [kOwnTiles][kN / 2][16]
  static constexpr int kScale = kResidual + kOwnTiles * kN / 2 * 64;  // fp32 [kN]
  static constexpr int kArrivals = kScale + 4 * kN;
  static constexpr int kFull = kArrivals + 8 * kInboxes;
  static constexpr int kNormPlace = kFull + 8 * kStages;  // bf16 [kNorms][kOwnTiles][16]
  static constexpr int kBytes = kNormPlace + kNorms * kOwnTiles * 32;
};

// What a block is and has.
template <int kN>
struct Block {
  const PersistStep& step;
  Mail mail;
  float *sums, *inbox, *residual, *scale;
  unsigned char* norms;  // of the residual stream's tiles: input and post attention norms, in order
  Arrival* arrivals;
  unsigned rank;
  int cluster, rows, sum_bytes;
  Cursor cursor;
  float4 turn = {};       // cos, sin of this lane's two pairs of a head, in its row of results
  int slot = -1;          // of that row
  unsigned sent = 0;      // tiles
  std::uint32_t tag = 0;  // of this launch's first layer (Parts)

  static constexpr int kShare = kN / kCluster;  // rows whose results this block writes
  static constexpr int kSumFloats = kWarps * kN * stream::kPitch;

  __device__ void mark(int layer, int point) const {
    if (step.stamps == nullptr || threadIdx.x != 0 || layer >= step.num_layers) return;
    step.stamps[(std::int64_t{blockIdx.x} * step.num_layers + layer) * kDecodeStamps + point] =
        clock64();
  }
};

// A lane of warp 0 writes numbers 2 j, 2 j + 1 and 8 more of both of a row's outputs of a tile.
struct Place {
  int local, j, row;
  bool active;
  template <int kN>
  __device__ explicit Place(const Block<kN>& block)
      : local(static_cast<int>(threadIdx.x) % 32 / 4),
        j(static_cast<int>(threadIdx.x) % 4),
        row(static_cast<int>(block.rank) * Block<kN>::kShare + local),
        active(local < Block<kN>::kShare && row < block.rows) {}
};

__device__ inline float low_half(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// Gives the residual stream's new numbers of a tile to the next norm's product.
template <int kN>
__device__ inline void publish(const Block<kN>& block, const Place& place, int layer, int cells,
                               int squares, int norm, int own, float2 low, float2 high) {
  const unsigned char* weights = block.norms + (norm * kOwnTiles + own) * 32 + place.j * 4;
  const auto below = *reinterpret_cast<const std::uint32_t*>(weights);
  const auto above = *reinterpret_cast<const std::uint32_t*>(weights + 16);
  const uint4 first = join_words(packed(low.x * low_half(below), low.y * high_half(below)));
  const uint4 second = join_words(packed(high.x * low_half(above), high.y * high_half(above)));
  const int tile = block.cluster + own * kClusters;
  float sum = fmaf(high.y, high.y, fmaf(high.x, high.x, fmaf(low.y, low.y, low.x * low.x)));
  sum += __shfl_xor_sync(kAll, sum, 1);
  sum += __shfl_xor_sync(kAll, sum, 2);
  if (!place.active) return;
  unsigned char* cell = block.mail.cell(place.row, layer, cells) + tile * 32;
  if (place.j == 0) write_cell(cell, first);
  if (place.j == 1) write_cell(cell + 16, second);
  if (place.j == 2) {
    write_word(block.mail.cell(place.row, layer, squares) + tile * 4, __float_as_uint(sum));
  }
}

// Adds `low`, `high` to the residual stream and publishes it. Called by warp 0.
template <int kN>
__device__ inline void add_residual(const Block<kN>& block, const Place& place, int kind, int layer,
                                    int own, float2 low, float2 high) {
  float* at = block.residual + (own * Block<kN>::kShare + place.local % Block<kN>::kShare) * 16 +
              2 * place.j;
  const float2 before = *reinterpret_cast<float2*>(at);
  const float2 above = *reinterpret_cast<float2*>(at + 8);
  low.x += before.x, low.y += before.y, high.x += above.x, high.y += above.y;
  __syncwarp();
  if (place.active) {
    *reinterpret_cast<float2*>(at) = low;
    *reinterpret_cast<float2*>(at + 8) = high;
  }
  const bool ffn = kind == kO;
  publish(block, place, ffn ? layer : layer + 1, ffn ? kFfnCells : kInputCells,
          ffn ? kFfnSquares : kInputSquares, 2 * layer + (ffn ? 1 : 2), own, low, high);
}

template <int kN>
__device__ inline void put_qkv(const Block<kN>& block, const Place& place, int layer, int tile,
                               float2 low, float2 high) {
  const int head = tile / 8, inner = tile % 8 * 16;
  const bool is_query = head < Shape::kHeads, is_value = head >= Shape::kHeads + Shape::kKvHeads;
  if (!is_value) {
    const float4& t = block.turn;
    const float2 a = low, b = high;
    low = make_float2(a.x * t.x - b.x * t.y, a.y * t.z - b.y * t.w);
    high = make_float2(b.x * t.x + a.x * t.y, b.y * t.z + a.y * t.w);
  }
  const uint4 first = join_words(packed(low.x, low.y)), second = join_words(packed(high.x, high.y));
  if (!place.active || place.j > 1) return;
  const uint4 piece =
      make_uint4(place.j == 0 ? first.x : second.x, place.j == 0 ? first.y : second.y,
                 place.j == 0 ? first.z : second.z, place.j == 0 ? first.w : second.w);
  const int at = inner + place.j * kHeadBytes / 2,
            kv_head = head - Shape::kHeads - (is_value ? Shape::kKvHeads : 0);
  const int cells = is_query ? kQueryCells + head * kHeadBytes
                             : (is_value ? kValueCells : kKeyCells) + kv_head * kHeadBytes;
  write_cell(block.mail.cell(place.row, layer, cells) + at, piece);
  if (is_query || block.slot < 0) return;
  const PersistLayer& weights = block.step.layers[layer];
  bf16* cache = is_value ? weights.v_cache : weights.k_cache;
  auto* to = reinterpret_cast<unsigned char*>(
      cache + (std::int64_t{block.slot} * Shape::kKvHeads + kv_head) * Shape::kDim);
  *reinterpret_cast<uint4*>(to + at) = piece;
}

__device__ inline bool has_norm(int kind) { return kind != kO && kind != kDown; }

// Receives tile number `index` of the block, number `own` of the stage, and writes its results.
// Called by warp 0.
template <int kN>
__device__ inline void put_results(const Block<kN>& block, unsigned index, int kind, int layer,
                                   int own) {
  const int tile = block.cluster + own * kClusters;
  Arrival* arrival = block.arrivals + index % kInboxes;
  stream::wait_arrival(arrival, index / kInboxes);
  __syncwarp();
  if (threadIdx.x == 0) stream::expect_arrival(arrival, block.sum_bytes);
  const Place place(block);
  const float* inbox = block.inbox + index % kInboxes * kN * 16;
  float2 low = make_float2(0, 0), high = low;
#pragma unroll
  for (int b = 0; b < kCluster; ++b) {
    const float* at =
        inbox + (b * Block<kN>::kShare + place.local % Block<kN>::kShare) * 16 + 2 * place.j;
    const float2 one = *reinterpret_cast<const float2*>(at);
    const float2 two = *reinterpret_cast<const float2*>(at + 8);
    low.x += one.x, low.y += one.y, high.x += two.x, high.y += two.y;
  }
  if (has_norm(kind)) {
    const float scale = block.scale[place.active ? place.row : 0];
    low.x *= scale, low.y *= scale, high.x *= scale, high.y *= scale;
  }
  if (kind == kQkv) {
    put_qkv(block, place, layer, tile, low, high);
  } else if (kind == kGateUp) {
    const uint4 piece = join_words(
        packed(low.x / (1.0f + expf(-low.x)) * high.x, low.y / (1.0f + expf(-low.y)) * high.y));
    if (place.active && place.j == 0) {
      write_cell(block.mail.cell(place.row, layer, kActivatedCells) + tile * 16, piece);
    }
  } else if (kind == kHead) {
    if (!place.active) return;
    float* to =
        block.step.logits + std::int64_t{place.row} * Shape::kHead + tile * 16 + 2 * place.j;
    *reinterpret_cast<float2*>(to) = low;
    *reinterpret_cast<float2*>(to + 8) = high;
  } else {
    add_residual(block, place, kind, layer, own, low, high);
  }
}

// 1 / sqrt(mean of the squares) of the rows, a warp each.
template <int kN>
__device__ inline void put_scales(const Block<kN>& block, int layer, int squares) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  static_assert(kParts % 32 == 0);
  for (int n = static_cast<int>(threadIdx.x) / 32; n < block.rows; n += kWarps) {
    const unsigned char* from = block.mail.cell(n, layer, squares) + lane * 4;
    std::uint32_t part[kParts / 32];
#pragma unroll
    for (int i = 0; i < kParts / 32; ++i) part[i] = read_word(from + i * 128);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kParts / 32; ++i) {
      while (part[i] == kEmpty) part[i] = read_word(from + i * 128);
      sum += __uint_as_float(part[i]);
    }
    __syncwarp();
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAll, sum, offset);
    if (lane == 0) {
      block.scale[n] = 1.0f / sqrtf(sum / static_cast<float>(Shape::kHidden) + block.step.eps);
    }
  }
}

__device__ inline int input_cells(int kind) {
  return kind == kO        ? kAttendedCells
         : kind == kGateUp ? kFfnCells
         : kind == kDown   ? kActivatedCells
                           : kInputCells;
}

template <int kN, int kStages>
__device__ inline void fill(Block<kN>& block, const Queue<kStages>& queue) {
  fill(block.cursor, block.step, queue.ring, block.cluster, static_cast<int>(block.rank));
}

// A product of kC chunks a tile. One code for all of these: with one for each
// product the kernel was larger than the instruction caches.
template <int kC, int kN, int kStages>
__device__ inline void run_stage(Block<kN>& block, Queue<kStages>& queue, int kind, int layer) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int tiles = kStrides[kind].tiles, mine = (tiles - 1 - block.cluster) / kClusters + 1;
  uint4 b[kC][2][kN / 8];
  block.mark(layer, kStampQkv + 2 * kind);
  bring<kN, kC>(b,
                block.mail.cell(0, layer, input_cells(kind)) +
                    static_cast<int>(block.rank) * kC * kChunkRowBytes + warp * 128 + lane % 4 * 16,
                block.mail.row_bytes, block.rows);
  block.mark(layer, kStampQkvInputs + 2 * kind);
#pragma unroll 1
  for (int own = 0; own < mine; ++own) {
    float acc[2][kN / 8][4];
    multiply<kN, kC>(acc, queue, b, [&] {
      __syncthreads();
      fill(block, queue);
    });
    if (own == 0 && has_norm(kind)) {
      put_scales(block, layer, kind == kGateUp ? kFfnSquares : kInputSquares);
    }
    float* sums = block.sums + block.sent % 2 * Block<kN>::kSumFloats;
    stream::store_sums<kN>(sums, acc);
    __syncthreads();  // all warps have read the tile's last piece, too
    stream::send_sums<kN>(sums, block.inbox + block.sent % kInboxes * kN * 16,
                          block.arrivals + block.sent % kInboxes, block.rank, block.rows,
                          Block<kN>::kShare);
    fill(block, queue);
    ++block.sent;
    // The tile before this one, and behind the last one itself: one place for the code.
    for (int late = own == 0 ? 1 : 0; warp == 0 && late <= (own + 1 == mine ? 1 : 0); ++late) {
      put_results(block, block.sent - 2 + static_cast<unsigned>(late), kind, layer, own - 1 + late);
    }
  }
}

}  // namespace higgs_rt::persist
