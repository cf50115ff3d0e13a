// What becomes of the sums of a product in the persistent kernel.
#pragma once

#include "ops/cuda/kernels/persist_block.cuh"

namespace higgs_rt::persist {

// Gives the residual stream's new numbers of a tile to the next norm's product.
__device__ inline void publish(const Block& block, const Place& place, int layer, int cells,
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

// Adds `low`, `high` to the residual stream and publishes it.
__device__ inline void add_residual(const Block& block, const Place& place, int kind, int layer,
                                    int own, float2 low, float2 high) {
  float* at =
      block.residual + (own * Block::kShare + place.local % Block::kShare) * 16 + 2 * place.j;
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

__device__ inline void put_qkv(const Block& block, const Place& place, int layer, int tile,
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
  if (is_query) return;
  const int slot = __ldg(block.step.slot + place.row);
  if (slot < 0) return;
  const PersistLayer& weights = block.step.layers[layer];
  bf16* cache = is_value ? weights.v_cache : weights.k_cache;
  auto* to = reinterpret_cast<unsigned char*>(
      cache + (std::int64_t{slot} * Shape::kKvHeads + kv_head) * Shape::kDim);
  *reinterpret_cast<uint4*>(to + at) = piece;
}

__device__ inline bool has_norm(int kind) { return kind != kO && kind != kDown; }

// Receives tile number `index` of the block, number `own` of the stage, and writes its results.
// Called by one warp.
__device__ inline void put_results(const Block& block, unsigned index, int kind, int layer,
                                   int own) {
  const int tile = tile_of(block.cluster, own);
  Arrival* arrival = block.arrivals + index % kInboxes;
  stream::wait_arrival(arrival, index / kInboxes);
  __syncwarp();
  if (threadIdx.x % 32 == 0) stream::expect_arrival(arrival, block.sum_bytes);
  const Place place(block);
  const float* inbox = block.inbox + index % kInboxes * kRows * 16;
  float2 low = make_float2(0, 0), high = low;
#pragma unroll
  for (int b = 0; b < kCluster; ++b) {
    const float* at = inbox + (b * Block::kShare + place.local % Block::kShare) * 16 + 2 * place.j;
    const float2 one = *reinterpret_cast<const float2*>(at);
    const float2 two = *reinterpret_cast<const float2*>(at + 8);
    low.x += one.x, low.y += one.y, high.x += two.x, high.y += two.y;
  }
  if (has_norm(kind)) {
    wait_barrier(block.scaled, kind == kGateUp ? 1 : 0);
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

// Behind the results of a stage: this thread has read the factors of its norm, if there is one.
__device__ inline void end_results(const Block& block, int kind) {
  if (has_norm(kind)) arrive_barrier(block.applied);
}

// 1 / sqrt(mean of the squares) of all rows for each norm of the step. For kScalers warps. A norm's
// factors take the place of the one's before. Its squares come of results that every warp wrote
// behind its last use of these, so that waiting for their last reader takes no time; but that is an
// order by way of other blocks' memory.
__device__ inline void put_scales(const Block& block, int scaler) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  static_assert(kParts % 32 == 0);
  if (scaler >= block.rows) return;
  for (int norm = 0; norm <= 2 * block.step.num_layers; ++norm) {
    if (norm > 0) wait_barrier(block.applied, (norm - 1) % 2);
    for (int n = scaler; n < block.rows; n += kScalers) {
      const unsigned char* from =
          block.mail.cell(n, norm / 2, norm % 2 == 0 ? kInputSquares : kFfnSquares) + lane * 4;
      std::uint32_t part[kParts / 32];
      // One lane looks until there is something.
      while (lane == 0 && n == scaler && read_word(from) == kEmpty) continue;
      __syncwarp();
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
    if (lane == 0) arrive_barrier(block.scaled);
  }
}

}  // namespace higgs_rt::persist
