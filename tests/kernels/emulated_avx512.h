#pragma once

// The AVX-512 instructions that kernels/cpu/simd uses, lane by lane, under their own names: sources included after this
// header compile for AVX2. Comes after everything that those sources include, and after AVX2 was made the target.

namespace specmoe::kernels::emulated_registers {

/// 512 bits, read as what an instruction wants them to be. In a namespace without functions, so that the shared
/// sources' own names are not taken for those below.
struct alignas(64) Register {
  std::array<std::uint32_t, 16> lanes;
};

}  // namespace specmoe::kernels::emulated_registers

namespace specmoe::kernels::emulated_avx512 {

using emulated_registers::Register;
using Mask = std::uint16_t;

template <class Lane>
std::array<Lane, 64 / sizeof(Lane)> lanes_of(const Register& x) {
  return std::bit_cast<std::array<Lane, 64 / sizeof(Lane)>>(x);
}

/// change(i) for each of the lanes.
template <class Lane, class Change>
Register make(const Change& change) {
  std::array<Lane, 64 / sizeof(Lane)> lanes;
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = change(i);
  return std::bit_cast<Register>(lanes);
}

template <class Change>
Register map(Register a, Register b, Register c, const Change& change) {
  const auto x = lanes_of<float>(a), y = lanes_of<float>(b), z = lanes_of<float>(c);
  return make<float>([&](std::size_t i) { return change(x[i], y[i], z[i]); });
}

template <class Narrow, class Half>
Register widen(const Half& from) {
  static_assert(sizeof(from) == 16 * sizeof(Narrow));
  std::array<Narrow, 16> narrow;
  std::memcpy(narrow.data(), &from, sizeof(narrow));
  return make<std::int32_t>([&](std::size_t i) { return std::int32_t{narrow[i]}; });
}

inline Register load(const void* from) {
  Register x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
inline void store(void* to, Register x) { std::memcpy(to, &x, sizeof(x)); }
inline Register load(Mask mask, const float* from) {
  return make<float>([&](std::size_t i) { return (mask >> i & 1) != 0 ? from[i] : 0.0F; });
}
inline void store(float* to, Mask mask, Register x) {
  const auto lanes = lanes_of<float>(x);
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    if ((mask >> i & 1) != 0) to[i] = lanes[i];
  }
}
inline Register keep(Mask mask, Register x) {
  const auto lanes = lanes_of<float>(x);
  return make<float>([&](std::size_t i) { return (mask >> i & 1) != 0 ? lanes[i] : 0.0F; });
}
inline Register all(float x) {
  return make<float>([&](std::size_t) { return x; });
}
inline Register all(int x) {
  return make<std::int32_t>([&](std::size_t) { return x; });
}

inline Register add(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x + y; });
}
inline Register sub(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x - y; });
}
inline Register mul(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x * y; });
}
inline Register div(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x / y; });
}
inline Register fma(Register a, Register b, Register c) {
  return map(a, b, c, [](float x, float y, float z) { return std::fma(x, y, z); });
}
inline Register fnma(Register a, Register b, Register c) {
  return map(a, b, c, [](float x, float y, float z) { return std::fma(-x, y, z); });
}
inline Register max(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x > y ? x : y; });
}
inline Register min(Register a, Register b) {
  return map(a, b, b, [](float x, float y, float) { return x < y ? x : y; });
}
inline Register round(Register a, int mode) {
  EXPECT_EQ(mode, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return map(a, a, a, [](float x, float, float) { return std::nearbyint(x); });
}
inline Mask compare(Register a, Register b, int how) {
  EXPECT_TRUE(how == _CMP_NLT_UQ || how == _CMP_EQ_OQ);
  const auto x = lanes_of<float>(a), y = lanes_of<float>(b);
  Mask mask = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    mask = static_cast<Mask>(mask | (how == _CMP_EQ_OQ ? x[i] == y[i] : !(x[i] < y[i])) << i);
  }
  return mask;
}

template <class Change>
Register map_bits(Register a, Register b, const Change& change) {
  const auto x = lanes_of<std::int32_t>(a), y = lanes_of<std::int32_t>(b);
  return make<std::int32_t>([&](std::size_t i) { return change(x[i], y[i]); });
}
inline Register add_bits(Register a, Register b) {
  return map_bits(a, b, [](std::uint32_t x, std::uint32_t y) { return static_cast<std::int32_t>(x + y); });
}
inline Register and_bits(Register a, Register b) {
  return map_bits(a, b, [](std::int32_t x, std::int32_t y) { return x & y; });
}
inline Register shift_left(Register a, int bits) {
  return map_bits(a, a, [&](std::uint32_t x, std::int32_t) { return static_cast<std::int32_t>(x << bits); });
}
inline Register shift_right(Register a, int bits) {
  return map_bits(a, a, [&](std::int32_t x, std::int32_t) { return x >> bits; });
}
inline Register to_float(Register a) {
  const auto lanes = lanes_of<std::int32_t>(a);
  return make<float>([&](std::size_t i) { return static_cast<float>(lanes[i]); });
}
inline Register to_int(Register a) {
  const auto lanes = lanes_of<float>(a);
  return make<std::int32_t>([&](std::size_t i) { return static_cast<std::int32_t>(std::lrint(lanes[i])); });
}
inline __m256 half(Register a, int which) {
  const auto lanes = lanes_of<float>(a);
  return _mm256_loadu_ps(lanes.data() + 8 * which);
}

/// The bfloat16 of `low`, then those of `high`.
inline Register to_bfloat16(Register high, Register low) {
  const auto first = lanes_of<float>(low), second = lanes_of<float>(high);
  return make<std::uint16_t>([&](std::size_t i) { return float_to_bfloat16(i < 16 ? first[i] : second[i - 16]); });
}
/// c + a b, pairs of bfloat16: the odd product first.
inline Register add_pairs(Register c, Register a, Register b) {
  const auto sum = lanes_of<float>(c);
  const auto x = lanes_of<std::uint16_t>(a), y = lanes_of<std::uint16_t>(b);
  return make<float>([&](std::size_t i) {
    const float odd = std::fma(bfloat16_to_float(x[2 * i + 1]), bfloat16_to_float(y[2 * i + 1]), sum[i]);
    return std::fma(bfloat16_to_float(x[2 * i]), bfloat16_to_float(y[2 * i]), odd);
  });
}

}  // namespace specmoe::kernels::emulated_avx512

// clang-format off: one line each
#define __m512 ::specmoe::kernels::emulated_registers::Register
#define __m512i ::specmoe::kernels::emulated_registers::Register
#define __m512bh ::specmoe::kernels::emulated_registers::Register
#define _mm512_setzero_ps() ::specmoe::kernels::emulated_avx512::all(0.0F)
#define _mm512_set1_ps(x) ::specmoe::kernels::emulated_avx512::all(float{x})
#define _mm512_set1_epi32(x) ::specmoe::kernels::emulated_avx512::all(int{x})
#define _mm512_loadu_ps(from) ::specmoe::kernels::emulated_avx512::load(from)
#define _mm512_loadu_si512(from) ::specmoe::kernels::emulated_avx512::load(from)
#define _mm512_storeu_ps(to, x) ::specmoe::kernels::emulated_avx512::store(to, x)
#define _mm512_store_si512(to, x) ::specmoe::kernels::emulated_avx512::store(to, x)
#define _mm512_maskz_loadu_ps(mask, from) ::specmoe::kernels::emulated_avx512::load(mask, from)
#define _mm512_mask_storeu_ps(to, mask, x) ::specmoe::kernels::emulated_avx512::store(to, mask, x)
#define _mm512_maskz_mov_ps(mask, x) ::specmoe::kernels::emulated_avx512::keep(mask, x)
#define _mm512_add_ps(a, b) ::specmoe::kernels::emulated_avx512::add(a, b)
#define _mm512_sub_ps(a, b) ::specmoe::kernels::emulated_avx512::sub(a, b)
#define _mm512_mul_ps(a, b) ::specmoe::kernels::emulated_avx512::mul(a, b)
#define _mm512_div_ps(a, b) ::specmoe::kernels::emulated_avx512::div(a, b)
#define _mm512_fmadd_ps(a, b, c) ::specmoe::kernels::emulated_avx512::fma(a, b, c)
#define _mm512_fnmadd_ps(a, b, c) ::specmoe::kernels::emulated_avx512::fnma(a, b, c)
#define _mm512_max_ps(a, b) ::specmoe::kernels::emulated_avx512::max(a, b)
#define _mm512_min_ps(a, b) ::specmoe::kernels::emulated_avx512::min(a, b)
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, mode) ::specmoe::kernels::emulated_avx512::round(a, mode)
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, how) ::specmoe::kernels::emulated_avx512::compare(a, b, how)
#define _mm512_add_epi32(a, b) ::specmoe::kernels::emulated_avx512::add_bits(a, b)
#define _mm512_and_si512(a, b) ::specmoe::kernels::emulated_avx512::and_bits(a, b)
#undef _mm512_slli_epi32
#define _mm512_slli_epi32(a, bits) ::specmoe::kernels::emulated_avx512::shift_left(a, bits)
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, bits) ::specmoe::kernels::emulated_avx512::shift_right(a, bits)
#define _mm512_cvtepi32_ps(a) ::specmoe::kernels::emulated_avx512::to_float(a)
#define _mm512_cvtps_epi32(a) ::specmoe::kernels::emulated_avx512::to_int(a)
#define _mm512_castsi512_ps(a) (a)
#define _mm512_castps_si512(a) (a)
#define _mm512_castps512_ps256(a) ::specmoe::kernels::emulated_avx512::half(a, 0)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, which) ::specmoe::kernels::emulated_avx512::half(a, which)
#define _mm512_cvtss_f32(a) _mm256_cvtss_f32(::specmoe::kernels::emulated_avx512::half(a, 0))
#define _mm512_cvtepu16_epi32(a) ::specmoe::kernels::emulated_avx512::widen<std::uint16_t>(a)
#define _mm512_cvtepi16_epi32(a) ::specmoe::kernels::emulated_avx512::widen<std::int16_t>(a)
#define _mm512_cvtepi8_epi32(a) ::specmoe::kernels::emulated_avx512::widen<std::int8_t>(a)
#define _mm512_cvtne2ps_pbh(high, low) ::specmoe::kernels::emulated_avx512::to_bfloat16(high, low)
#define _mm512_dpbf16_ps(c, a, b) ::specmoe::kernels::emulated_avx512::add_pairs(c, a, b)
// clang-format on
