#pragma once

// The AVX-512 vector of the shared sources beside this file. Include after `#pragma GCC target("avx512f,...")`.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kWidth = 16;
using Floats = __m512;
using Bits = __m512i;

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats broadcast(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }

/// kWidth narrow elements, widened.
inline Floats load(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Floats load(const std::int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

inline __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
/// The first n < kWidth elements; the other lanes are zero (load) or left alone (store).
inline Floats load_first(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_first(float* p, Floats x, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
inline Floats keep_first(Floats x, std::int64_t n) { return _mm512_maskz_mov_ps(first_lanes(n), x); }

inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
/// The second operand where either is NaN.
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats round(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/// x * 2^n for integral n in [-126, 127] with a normal result.
inline Floats scale_by_power_of_2(Floats x, Floats n) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
}
/// `what` where x is at least `limit`, or not a number; 0 elsewhere.
inline Floats zero_below(Floats x, Floats what, Floats limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), what);
}
/// One bit per lane.
inline unsigned equal_lanes(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

/// Into the second-level cache; any address will do.
inline void prefetch(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

/// Two bfloat16 in every 32-bit lane.
inline Bits load_bits(const std::byte* p) { return _mm512_loadu_si512(p); }
inline Floats low_bfloat16(Bits x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline Floats high_bfloat16(Bits x) {
  return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

/// Two int8 in every 32-bit lane, widened from 16 bits: the first in the low byte, the second above it with its sign.
inline Bits load_int8_pairs(const std::byte* p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline constexpr float kInt8Factor = 1.0F;  // low_int8 and high_int8 are this times the values
inline Floats low_int8(Bits x) { return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 24), 24)); }
inline Floats high_int8(Bits x) { return _mm512_cvtepi32_ps(_mm512_srai_epi32(x, 8)); }

/// Lanes i and i + 8 added.
inline __m256 half_sum(Floats x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }

inline float first_lane(Floats x) { return _mm512_cvtss_f32(x); }

inline float sum_lanes(Floats x) {
  const __m256 half = half_sum(x);
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

inline float max_lanes(Floats x) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
