#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "ops/cpu/cpu_ops.h"

namespace higgs_rt {

namespace {

// Rows [row, row + rows) of one sequence, as many as fill one kernel tile.
struct RowTile {
  std::int64_t row;
  std::int64_t rows;
  std::int64_t longest;  // positions that its last row attends to
};

std::vector<RowTile> tiles_of(const Ops::AttentionBatch& batch, std::int64_t max_rows,
                              std::int64_t num_blocks_limit) {
  const std::int32_t* sequence = batch.sequence.as<std::int32_t>();
  const std::int32_t* position = batch.position.as<std::int32_t>();
  const std::int64_t rows = batch.sequence.dim(0), sequences = batch.block_table.dim(0);
  const std::int64_t max_length = num_blocks_limit * batch.layout.block_tokens;
  std::vector<RowTile> tiles;
  for (std::int64_t r = 0; r < rows; ++r) {
    check_internal(sequence[r] >= 0 && sequence[r] < sequences, "attention",
                   "sequence: expected 0..", sequences - 1, ", got ", sequence[r]);
    check_internal(position[r] >= 0 && position[r] < max_length, "attention",
                   "position: expected 0..", max_length - 1, ", got ", position[r]);
    const std::int64_t length = std::int64_t{position[r]} + 1;
    if (!tiles.empty() && tiles.back().rows < max_rows &&
        sequence[tiles.back().row] == sequence[r]) {
      ++tiles.back().rows;
      tiles.back().longest = std::max(tiles.back().longest, length);
    } else {
      tiles.push_back({r, 1, length});
    }
  }
  return tiles;
}

// Every block that a tile reads must exist: the table's unused entries are -1.
void check_blocks(const Ops::AttentionBatch& batch, const std::vector<RowTile>& tiles) {
  const std::int64_t max_blocks = batch.block_table.dim(1);
  for (const RowTile& tile : tiles) {
    const std::int32_t* blocks = batch.block_table.as<std::int32_t>() +
                                 batch.sequence.as<std::int32_t>()[tile.row] * max_blocks;
    for (std::int64_t b = 0; b * batch.layout.block_tokens < tile.longest; ++b) {
      check_internal(blocks[b] >= 0 && blocks[b] < batch.layout.num_blocks, "attention",
                     "block_table: expected 0..", batch.layout.num_blocks - 1, ", got ", blocks[b]);
    }
  }
}

// Grows only; one per thread, so that a step allocates nothing once it has run.
float* scratch(std::int64_t size) {
  thread_local std::vector<float> memory;
  if (static_cast<std::int64_t>(memory.size()) < size) {
    memory.resize(static_cast<std::size_t>(size));
  }
  return memory.data();
}

}  // namespace

// Alone, a row's keys and values stay in the caches from step to step. Those of several do not fit,
// and are asked for while the products before the attention keep the multipliers busy.
void CpuOps::expect_attention(const TensorView& k_cache, const TensorView& v_cache,
                              const AttentionBatch& batch) {
  constexpr std::int64_t kMinRows = 4;
  const std::int64_t rows = batch.sequence.dim(0), max_blocks = batch.block_table.dim(1);
  far_ = {};
  far_pieces_.clear();
  if (rows < kMinRows) return;
  const std::int64_t row_bytes = k_cache.dim(1) * k_cache.dim(2) * std::int64_t{sizeof(float)};
  const std::int64_t block_bytes = batch.layout.block_tokens * row_bytes;
  const std::int32_t* sequence = batch.sequence.as<std::int32_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    if (r + 1 < rows && sequence[r + 1] == sequence[r]) continue;  // the last one reads the most
    const std::int64_t bytes = batch.position.as<std::int32_t>()[r] * row_bytes;
    const std::int32_t* blocks = batch.block_table.as<std::int32_t>() + sequence[r] * max_blocks;
    for (std::int64_t at = 0; at < bytes; at += kFarLine * kFarLines) {
      const std::int64_t offset = blocks[at / block_bytes] * block_bytes + at % block_bytes;
      far_pieces_.push_back(reinterpret_cast<const char*>(k_cache.as<float>()) + offset);
      far_pieces_.push_back(reinterpret_cast<const char*>(v_cache.as<float>()) + offset);
    }
  }
  far_ = {far_pieces_.data(), static_cast<std::int64_t>(far_pieces_.size()), 0};
}

void CpuOps::attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                       const AttentionBatch& batch, const TensorView& out) {
  expect_rank("attention", "q", q, 3);
  expect_rank("attention", "k_cache", k_cache, 3);
  expect_rank("attention", "block_table", batch.block_table, 2);
  const std::int64_t rows = q.dim(0), query_heads = q.dim(1), dim = q.dim(2);
  const std::int64_t kv_heads = k_cache.dim(1), slots = batch.layout.num_slots();
  check_internal(kv_heads > 0 && query_heads % kv_heads == 0, "attention",
                 "q: expected a multiple of ", kv_heads, " heads, got ", query_heads);
  check_internal(batch.layout.block_tokens > 0, "attention", "layout: expected block_tokens > 0");
  expect("attention", "q", q, DType::kF32, {rows, query_heads, dim});
  expect("attention", "k_cache", k_cache, DType::kF32, {slots, kv_heads, dim});
  expect("attention", "v_cache", v_cache, DType::kF32, {slots, kv_heads, dim});
  expect("attention", "sequence", batch.sequence, DType::kI32, {rows});
  expect("attention", "position", batch.position, DType::kI32, {rows});
  expect("attention", "block_table", batch.block_table, DType::kI32, batch.block_table.shape);
  expect("attention", "out", out, DType::kF32, {rows, query_heads, dim});
  if (rows == 0) return;

  const std::int64_t group = query_heads / kv_heads, max_blocks = batch.block_table.dim(1);
  const std::int64_t tile_rows = std::max<std::int64_t>(1, kernels_.attention_rows / group);
  const std::vector<RowTile> tiles = tiles_of(batch, tile_rows, max_blocks);
  check_blocks(batch, tiles);
  std::int64_t cost = 0;
  for (const RowTile& tile : tiles) cost += 2 * tile.rows * group * tile.longest * dim;
  const auto count = static_cast<std::int64_t>(tiles.size());
  parallel(count * kv_heads, cost / count, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const RowTile& tile = tiles[static_cast<std::size_t>(item / kv_heads)];
      const std::int64_t stride = (tile.longest + 15) / 16 * 16;
      const std::int64_t at = tile.row * query_heads * dim;
      const std::int32_t* blocks = batch.block_table.as<std::int32_t>() +
                                   batch.sequence.as<std::int32_t>()[tile.row] * max_blocks;
      kernels_.attention({.q = q.as<float>() + at,
                          .out = out.as<float>() + at,
                          .k_cache = k_cache.as<float>(),
                          .v_cache = v_cache.as<float>(),
                          .blocks = blocks,
                          .position = batch.position.as<std::int32_t>() + tile.row,
                          .rows = tile.rows,
                          .query_heads = query_heads,
                          .kv_heads = kv_heads,
                          .kv_head = item % kv_heads,
                          .dim = dim,
                          .block_tokens = batch.layout.block_tokens,
                          .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                          .scores = scratch(tile.rows * group * stride),
                          .score_stride = stride});
    }
  });
}

}  // namespace higgs_rt
