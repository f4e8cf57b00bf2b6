#pragma once

// The AVX2 + FMA vector of the shared sources beside this file. Include after `#pragma GCC target("avx2,fma")`.

namespace specmoe::kernels::SPECMOE_SIMD {

inline constexpr int kWidth = 8;
using Floats = __m256;
using Bits = __m256i;

inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats broadcast(float x) { return _mm256_set1_ps(x); }
inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }

/// kWidth narrow elements, widened.
inline Floats load(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Floats load(const std::int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

inline Bits first_lanes(std::int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/// The first n < kWidth elements; the other lanes are zero (load) or left alone (store).
inline Floats load_first(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store_first(float* p, Floats x, std::int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
inline Floats keep_first(Floats x, std::int64_t n) { return _mm256_and_ps(x, _mm256_castsi256_ps(first_lanes(n))); }

inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats fnma(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
/// The second operand where either is NaN.
inline Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats round(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/// x * 2^n for integral n in [-126, 127] with a normal result.
inline Floats scale_by_power_of_2(Floats x, Floats n) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
/// `what` where x is at least `limit`, or not a number; 0 elsewhere.
inline Floats zero_below(Floats x, Floats what, Floats limit) {
  return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), what);
}
/// One bit per lane.
inline unsigned equal_lanes(Floats a, Floats b) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
}

/// Into the second-level cache; any address will do.
inline void prefetch(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

/// Two bfloat16 in every 32-bit lane.
inline Bits load_bits(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Floats low_bfloat16(Bits x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
inline Floats high_bfloat16(Bits x) {
  return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

/// Sixteen int8, pairs of eight outputs, in both halves.
inline Bits load_int8_pairs(const std::byte* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
/// The first and the second of every pair, times kInt8Factor: a shuffle puts each into the top byte of a lane, sign and
/// all, and dividing the sums costs less than moving it down. Sums stay finite for inputs below 1e25.
inline constexpr float kInt8Factor = 0x1p24F;
alignas(32) inline constexpr std::int8_t kToTop[2][32] = {
    {-1, -1, -1, 0, -1, -1, -1, 2,  -1, -1, -1, 4,  -1, -1, -1, 6,  //
     -1, -1, -1, 8, -1, -1, -1, 10, -1, -1, -1, 12, -1, -1, -1, 14},
    {-1, -1, -1, 1, -1, -1, -1, 3,  -1, -1, -1, 5,  -1, -1, -1, 7,  //
     -1, -1, -1, 9, -1, -1, -1, 11, -1, -1, -1, 13, -1, -1, -1, 15}};
inline Floats int8_of_pairs(Bits x, int which) {
  const auto* to_top = reinterpret_cast<const __m256i*>(kToTop[which]);
  asm volatile("" : "+r"(to_top));  // from memory every time: in registers it would push out sums (30 % slower)
  return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(x, _mm256_load_si256(to_top)));
}
inline Floats low_int8(Bits x) { return int8_of_pairs(x, 0); }
inline Floats high_int8(Bits x) { return int8_of_pairs(x, 1); }

inline __m256 half_sum(Floats x) { return x; }

inline float first_lane(Floats x) { return _mm256_cvtss_f32(x); }

inline float sum_lanes(Floats x) {
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

inline float max_lanes(Floats x) {
  const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
