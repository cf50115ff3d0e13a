// Attention of a few query rows to one key/value head: all scores, their softmax, then the values.
//
// Positions are walked in ascending order in each of the three passes, and a (row, head) pair has
// accumulators of its own, so its bits depend on nothing but its own sequence.
#pragma once

#include "ops/cpu/kernels/linear.h"
#include "ops/cpu/vector_math.h"

namespace higgs_rt::HIGGS_ISA {

constexpr int kMaxQueries = kMaxTileRows;  // (row, head) pairs of one tile
#if defined(__AVX512F__)
constexpr int kMaxSums = 24;  // that the registers hold
#elif defined(__AVX2__)
constexpr int kMaxSums = 12;
#else
constexpr int kMaxSums = 8;
#endif

// Of the first position of a block of the sequence.
HIGGS_INLINE std::int64_t cache_offset(const AttentionArgs& a, std::int64_t block) {
  return (a.blocks[block] * a.block_tokens * a.kv_heads + a.kv_head) * a.dim;
}

// Positions [begin, end) are consecutive slots that start at `keys`.
template <int NP, int NQ>
HIGGS_INLINE void score_tile(const AttentionArgs& a, const float* const* q, const float* keys,
                             std::int64_t position) {
  const std::int64_t stride = a.kv_heads * a.dim;
  V acc[NQ][NP] = {};
  std::int64_t i = 0;
  for (; i + kWidth <= a.dim; i += kWidth) {
    HIGGS_UNROLL
    for (int n = 0; n < NQ; ++n) {
      const V qv = load(q[n] + i);
      HIGGS_UNROLL
      for (int p = 0; p < NP; ++p) acc[n][p] = fma(load(keys + p * stride + i), qv, acc[n][p]);
    }
  }
  if (i < a.dim) {
    HIGGS_UNROLL
    for (int n = 0; n < NQ; ++n) {
      const V qv = load_part(q[n] + i, a.dim - i);
      HIGGS_UNROLL
      for (int p = 0; p < NP; ++p) {
        acc[n][p] = fma(load_part(keys + p * stride + i, a.dim - i), qv, acc[n][p]);
      }
    }
  }
  HIGGS_UNROLL
  for (int n = 0; n < NQ; ++n) {
    float* scores = a.scores + n * a.score_stride + position;
#if defined(__AVX512F__)
    if constexpr (NP == 8) {
      const V8 value = sum8(acc[n]) * a.scale;
      std::memcpy(scores, &value, sizeof(value));
      continue;
    }
#endif
    if constexpr (NP == 4) {
      const V4 value = sum4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]) * a.scale;
      std::memcpy(scores, &value, sizeof(value));
    } else {
      HIGGS_UNROLL
      for (int p = 0; p < NP; ++p) scores[p] = sum(acc[n][p]) * a.scale;
    }
  }
}

template <int NQ>
HIGGS_INLINE void all_scores(const AttentionArgs& a, const float* const* q, std::int64_t length) {
  const std::int64_t stride = a.kv_heads * a.dim;
  for (std::int64_t begin = 0, block = 0; begin < length; begin += a.block_tokens, ++block) {
    const std::int64_t end = begin + a.block_tokens < length ? begin + a.block_tokens : length;
    const float* keys = a.k_cache + cache_offset(a, block);
    std::int64_t p = begin;
    if constexpr (kWidth == 16 && 8 * NQ <= kMaxSums) {
      for (; p + 8 <= end; p += 8) score_tile<8, NQ>(a, q, keys + (p - begin) * stride, p);
    }
    for (; p + 4 <= end; p += 4) score_tile<4, NQ>(a, q, keys + (p - begin) * stride, p);
    for (; p < end; ++p) score_tile<1, NQ>(a, q, keys + (p - begin) * stride, p);
  }
}

// Replaces scores[0..length) by their exponentials relative to the largest and those in
// [length, limit) by zeros; returns the sum. The rest of the last vector is overwritten too.
inline float softmax_numerators(float* scores, std::int64_t length, std::int64_t limit) {
  for (std::int64_t p = length; p % kWidth != 0; ++p) scores[p] = -__builtin_inff();
  V tops = load(scores);
  for (std::int64_t p = kWidth; p < length; p += kWidth) tops = max(tops, load(scores + p));
  const float top = max_lane(tops);
  V total{};
  std::int64_t p = 0;
  for (; p < length; p += kWidth) {
    const V e = exp(load(scores + p) - top);
    store(scores + p, e);
    total = total + e;
  }
  for (; p < limit; p += kWidth) store(scores + p, V{});
  return sum(total);
}

// Vectors of the outputs of NQ queries that the registers hold two sums of each for.
constexpr int value_vectors(int queries) { return 8 * queries <= kMaxSums ? 4 : 2; }

// Element range [d, d + ND vectors) of the outputs of NQ queries; `part` > 0: only so many elements
// of a single vector. Even and odd positions of a block have sums of their own.
template <int NQ, int ND>
HIGGS_INLINE void value_tile(const AttentionArgs& a, float* const* out, const float* inverse,
                             std::int64_t length, std::int64_t d, std::int64_t part) {
  const std::int64_t stride = a.kv_heads * a.dim;
  V acc[2][NQ][ND] = {};
  const auto add = [&](V(&sums)[NQ][ND], const float* values, std::int64_t p) {
    V value[ND];
    HIGGS_UNROLL
    for (int i = 0; i < ND; ++i) {
      value[i] = part > 0 ? load_part(values, part) : load(values + i * kWidth);
    }
    HIGGS_UNROLL
    for (int n = 0; n < NQ; ++n) {
      const V weight = set1(a.scores[n * a.score_stride + p]);
      HIGGS_UNROLL
      for (int i = 0; i < ND; ++i) sums[n][i] = fma(weight, value[i], sums[n][i]);
    }
  };
  for (std::int64_t begin = 0, block = 0; begin < length; begin += a.block_tokens, ++block) {
    const std::int64_t end = begin + a.block_tokens < length ? begin + a.block_tokens : length;
    const float* values = a.v_cache + cache_offset(a, block) + d;
    std::int64_t p = begin;
    for (; p + 2 <= end; p += 2, values += 2 * stride) {
      add(acc[0], values, p);
      add(acc[1], values + stride, p + 1);
    }
    if (p < end) add(acc[0], values, p);
  }
  HIGGS_UNROLL
  for (int n = 0; n < NQ; ++n) {
    HIGGS_UNROLL
    for (int i = 0; i < ND; ++i) {
      const V result = (acc[0][n][i] + acc[1][n][i]) * inverse[n];
      if (part > 0) {
        store_part(out[n] + d, result, part);
      } else {
        store(out[n] + d + i * kWidth, result);
      }
    }
  }
}

template <int NQ>
inline void attend(const AttentionArgs& a, const float* const* q, float* const* out,
                   const std::int64_t* lengths) {
  std::int64_t longest = 0;
  HIGGS_UNROLL
  for (int n = 0; n < NQ; ++n) longest = lengths[n] > longest ? lengths[n] : longest;
  all_scores<NQ>(a, q, longest);
  float inverse[NQ];
  HIGGS_UNROLL
  for (int n = 0; n < NQ; ++n) {
    inverse[n] = 1.0f / softmax_numerators(a.scores + n * a.score_stride, lengths[n], longest);
  }
  std::int64_t d = 0;
  constexpr int kVectors = value_vectors(NQ);
  for (; d + kVectors * kWidth <= a.dim; d += kVectors * kWidth)
    value_tile<NQ, kVectors>(a, out, inverse, longest, d, 0);
  for (; d + kWidth <= a.dim; d += kWidth) value_tile<NQ, 1>(a, out, inverse, longest, d, 0);
  if (d < a.dim) value_tile<NQ, 1>(a, out, inverse, longest, d, a.dim - d);
}

// Query pairs (row, head of the group) in tiles of up to kMaxQueries.
inline void attention(const AttentionArgs& a) {
  const std::int64_t group = a.query_heads / a.kv_heads;
  const std::int64_t total = a.rows * group;
  for (std::int64_t first = 0; first < total; first += kMaxQueries) {
    const float* q[kMaxQueries];
    float* out[kMaxQueries];
    std::int64_t lengths[kMaxQueries];
    const std::int64_t count = total - first < kMaxQueries ? total - first : kMaxQueries;
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t row = (first + n) / group;
      const std::int64_t head = a.kv_head * group + (first + n) % group;
      q[n] = a.q + (row * a.query_heads + head) * a.dim;
      out[n] = a.out + (row * a.query_heads + head) * a.dim;
      lengths[n] = a.position[row] + 1;
    }
    switch (count) {
      case 1:
        attend<1>(a, q, out, lengths);
        break;
      case 2:
        attend<2>(a, q, out, lengths);
        break;
#if defined(__AVX2__)
      case 3:
        attend<3>(a, q, out, lengths);
        break;
#endif
#if defined(__AVX512F__)
      case 4:
        attend<4>(a, q, out, lengths);
        break;
      case 5:
        attend<5>(a, q, out, lengths);
        break;
      case 6:
        attend<6>(a, q, out, lengths);
        break;
#endif
    }
  }
}

}  // namespace higgs_rt::HIGGS_ISA
