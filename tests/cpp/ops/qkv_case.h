// Cases of attention_input for tests that compare CUDA operations with the CPU's.
#pragma once

#include <cmath>
#include <vector>

#include "cuda_backend.h"

namespace higgs_rt::testing {

struct QkvCase {
  std::int64_t rows, text, size, heads, kv_heads, dim;
  DType dtype;
};

// Everything that attention_input takes and gives, on one device.
struct QkvData {
  Tensor x, weight, text_norm, audio_norm, rope, position, slot, normed, k, v, q, k_cache, v_cache;
};

inline constexpr std::int64_t kSlots = 400, kPositions = 50;

inline void run_qkv(Ops& ops, const QkvCase& c, const QkvData& d) {
  const std::int64_t q_dim = c.heads * c.dim, kv_dim = c.kv_heads * c.dim;
  ops.attention_input(d.x,
                      {.num_text_rows = c.text,
                       .text_norm = d.text_norm,
                       .audio_norm = d.audio_norm,
                       .eps = 1e-5f,
                       .q_weight = d.weight.view().first(q_dim),
                       .k_weight = d.weight.view().slice(q_dim, kv_dim),
                       .v_weight = d.weight.view().slice(q_dim + kv_dim, kv_dim),
                       .position = d.position,
                       .slot = d.slot,
                       .rope = d.rope,
                       .normed = d.normed,
                       .k = d.k,
                       .v = d.v},
                      d.q, d.k_cache, d.v_cache);
}

inline QkvData qkv_data(const QkvCase& c) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.size));
  std::vector<std::int32_t> position, slot;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    position.push_back(uniform(0, kPositions - 1));
    slot.push_back(static_cast<std::int32_t>((r * 7 + 3) % kSlots));
  }
  QkvData d;
  d.x = random_tensor({c.rows, c.size}, DType::kF32, 3.0f);
  d.weight = random_tensor({(c.heads + 2 * c.kv_heads) * c.dim, c.size}, c.dtype, scale);
  d.text_norm = random_tensor({c.size}, c.dtype);
  d.audio_norm = random_tensor({c.size}, c.dtype);
  d.rope = random_tensor({kPositions, c.dim / 2, 2});
  d.position = integers(position, {c.rows});
  d.slot = integers(slot, {c.rows});
  d.normed = zeros({c.rows, c.size});
  d.k = zeros({c.rows, c.kv_heads, c.dim});
  d.v = zeros({c.rows, c.kv_heads, c.dim});
  d.q = zeros({c.rows, c.heads, c.dim});
  d.k_cache = zeros({kSlots, c.kv_heads, c.dim});
  d.v_cache = zeros({kSlots, c.kv_heads, c.dim});
  return d;
}

// The first c.rows rows of d.
inline QkvData on_gpu(CudaBackend& gpu, const QkvCase& c, const QkvData& d) {
  QkvData g;
  g.x = gpu.put(d.x.view().first(c.rows)), g.weight = gpu.put(d.weight);
  g.text_norm = gpu.put(d.text_norm), g.audio_norm = gpu.put(d.audio_norm);
  g.rope = gpu.put(d.rope), g.position = gpu.put(d.position.view().first(c.rows));
  g.slot = gpu.put(d.slot.view().first(c.rows));
  g.normed = gpu.poisoned({c.rows, c.size}, c.dtype);
  g.k = gpu.poisoned({c.rows, c.kv_heads, c.dim}, c.dtype);
  g.v = gpu.poisoned({c.rows, c.kv_heads, c.dim}, c.dtype);
  g.q = gpu.poisoned({c.rows, c.heads, c.dim}, c.dtype);
  g.k_cache = gpu.put(zeros({kSlots, c.kv_heads, c.dim}, c.dtype));
  g.v_cache = gpu.put(zeros({kSlots, c.kv_heads, c.dim}, c.dtype));
  return g;
}

}  // namespace higgs_rt::testing
