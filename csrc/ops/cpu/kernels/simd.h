// One vector type `V` of kWidth floats for the instruction set of the translation unit.
//
// Included only by isa_*.cpp, each of which names its own namespace HIGGS_ISA: nothing here may
// leak between units that are compiled with different instruction sets, so these headers use no
// library templates.
//
// Every function does the same arithmetic on every lane, and a lane's result never depends on the
// other lanes. The sum over lanes has one fixed tree. Row independence rests on these two facts.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define HIGGS_INLINE inline __attribute__((always_inline))
// Before the loops over a register tile: unrolled early, their arrays become registers.
#define HIGGS_UNROLL _Pragma("GCC unroll 32")

namespace higgs_rt::HIGGS_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float V __attribute__((vector_size(kWidth * 4)));
typedef double VD __attribute__((vector_size(kWidth * 8)));
typedef std::int32_t VI __attribute__((vector_size(kWidth * 4)));
typedef std::uint16_t VH __attribute__((vector_size(kWidth * 2)));
typedef float V4 __attribute__((vector_size(16)));
typedef float V8 __attribute__((vector_size(32)));

HIGGS_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
HIGGS_INLINE void store(float* p, V v) { std::memcpy(p, &v, sizeof(v)); }
// Subtracting zero is exact, so the compiler leaves only the broadcast.
HIGGS_INLINE V set1(float x) { return x - V{}; }

HIGGS_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

// bf16 (given as its bits) to fp32.
HIGGS_INLINE V load(const std::uint16_t* p) {
#if defined(__AVX512F__)
  // The masked form, because GCC 12 warns about its own header's plain one.
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (V)((VI)_mm512_maskz_cvtepu16_epi32(0xffff, bits) << 16);
#elif defined(__AVX2__)
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (V)((VI)_mm256_cvtepu16_epi32(bits) << 16);
#else
  VH half;
  std::memcpy(&half, p, sizeof(half));
  return (V)(__builtin_convertvector(half, VI) << 16);
#endif
}

// The first n < kWidth elements, zeros behind them.
HIGGS_INLINE V load_part(const float* p, std::int64_t n) {
  float buffer[kWidth] = {};
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
}
HIGGS_INLINE V load_part(const std::uint16_t* p, std::int64_t n) {
  std::uint16_t buffer[kWidth] = {};
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
}
HIGGS_INLINE void store_part(float* p, V v, std::int64_t n) {
  float buffer[kWidth];
  store(buffer, v);
  for (std::int64_t i = 0; i < n; ++i) p[i] = buffer[i];
}

// Adds the upper half of the lanes to the lower half until four lanes are left.
HIGGS_INLINE V4 fold(V v) {
#if defined(__AVX512F__)
  const V8 v8 = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(v8, v8, 0, 1, 2, 3) + __builtin_shufflevector(v8, v8, 4, 5, 6, 7);
#elif defined(__AVX2__)
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  return v;
#endif
}

// The lane sums of a, b, c and d. Each is ((l0 + l2) + (l1 + l3)) over its folded lanes.
HIGGS_INLINE V4 sum4(V a, V b, V c, V d) {
  const V4 fa = fold(a), fb = fold(b), fc = fold(c), fd = fold(d);
  const V4 ab =
      __builtin_shufflevector(fa, fb, 0, 1, 4, 5) + __builtin_shufflevector(fa, fb, 2, 3, 6, 7);
  const V4 cd =
      __builtin_shufflevector(fc, fd, 0, 1, 4, 5) + __builtin_shufflevector(fc, fd, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}
#if defined(__AVX512F__)
// The lane sums of eight vectors, each as sum4() has it.
HIGGS_INLINE V8 sum8(const V (&v)[8]) {
  V half[4];  // of two vectors each, eight lanes folded
  HIGGS_UNROLL
  for (int i = 0; i < 4; ++i) {
    const V a = v[2 * i], b = v[2 * i + 1];
    half[i] =
        __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
        __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  V quarter[2];  // of four vectors each, four lanes folded
  HIGGS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const V a = half[2 * i], b = half[2 * i + 1];
    quarter[i] =
        __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
        __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  const V a = quarter[0], b = quarter[1];
  const V pair =
      __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
      __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  return __builtin_shufflevector(pair, pair, 0, 4, 8, 12, 2, 6, 10, 14) +
         __builtin_shufflevector(pair, pair, 1, 5, 9, 13, 3, 7, 11, 15);
}
#endif
HIGGS_INLINE float sum(V v) { return sum4(v, v, v, v)[0]; }

// Whether every lane of a comparison's result holds.
HIGGS_INLINE bool all(VI lanes) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)lanes) == 0xffff;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)lanes) == 0xff;
#else
  std::int32_t holds = -1;
  for (int i = 0; i < kWidth; ++i) holds &= lanes[i];
  return holds != 0;
#endif
}

// Whether |x| <= limit, lane by lane, false for NaN; and whether that holds in every lane.
#if defined(__AVX512F__)
typedef __mmask16 Lanes;
HIGGS_INLINE Lanes within(V x, float limit) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(x), set1(limit), _CMP_LE_OQ);
}
HIGGS_INLINE bool all_lanes(Lanes lanes) { return lanes == 0xffff; }
#else
typedef VI Lanes;
HIGGS_INLINE Lanes within(V x, float limit) { return (x <= limit) & (x >= -limit); }
HIGGS_INLINE bool all_lanes(Lanes lanes) { return all(lanes); }
#endif

HIGGS_INLINE V max(V a, V b) { return a > b ? a : b; }
HIGGS_INLINE float max_lane(V v) {
#if defined(__AVX512F__)
  v = max(
      v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  v = max(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7));
  constexpr int kLeft = 4;
#else
  constexpr int kLeft = kWidth;
#endif
  float m = v[0];
  for (int i = 1; i < kLeft; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

HIGGS_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
// Not into the first-level cache.
HIGGS_INLINE void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace higgs_rt::HIGGS_ISA
