#pragma once

// The bfloat16 conversions of AVX-512, for tiles that multiply bfloat16. Comes after simd/avx512.h.

namespace specmoe::kernels::SPECMOE_SIMD {

/// 2 * kWidth values as kWidth pairs of bfloat16, rounded to nearest even. `to` is aligned to whole vectors.
inline void store_pairs(std::uint32_t* to, Floats low, Floats high) {
  _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/// 32 int8 as 16 pairs of bfloat16, which holds them exactly.
inline __m512bh widen_int8_line(const std::byte* p) {
  const auto widened = [p](int i) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i)));
  };
  return _mm512_cvtne2ps_pbh(widened(1), widened(0));
}
inline void widen_int8_line(const std::byte* p, std::byte* to) { _mm512_store_si512(to, (__m512i)widen_int8_line(p)); }

}  // namespace specmoe::kernels::SPECMOE_SIMD
