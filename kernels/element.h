#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace specmoe::kernels {

/// Elements of this type are told apart from integers when code is written once for all types.
struct BFloat16 {
  std::uint16_t bits;
};

inline float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// Rounds to nearest, ties to even; a NaN stays a NaN.
inline std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto rounded = static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  return std::isnan(value) ? static_cast<std::uint16_t>((bits >> 16) | 0x40U) : rounded;
}

/// How floats of which `largest` is the largest magnitude become int8: value * factor, rounded to the nearest integer;
/// the integer * scale gives it back. What is not finite makes all of them NaN, which the caller sees; numbers so small
/// that they have no inverse become 0.
struct Int8Scale {
  explicit Int8Scale(float largest)
      : scale(std::isfinite(largest) ? largest / 127 : NAN),
        factor(std::isfinite(largest) && std::isfinite(127 / largest) ? 127 / largest : 0) {}
  float scale;
  float factor;
};

/// To the nearest, ties to even, of |value| <= 127: adding this number pushes the fraction out of the mantissa.
inline std::int8_t round_to_int8(float value) {
  constexpr float kShift = 0x1.8p23F;
  return static_cast<std::int8_t>(std::bit_cast<std::int32_t>(value + kShift) - std::bit_cast<std::int32_t>(kShift));
}

/// Exact. The exponent's bias is corrected by a product, which makes subnormals right as well.
inline float float16_to_float(std::uint16_t bits) {
  const std::uint32_t magnitude = std::uint32_t{bits & 0x7fffU} << 13;
  const bool finite = (bits & 0x7c00U) != 0x7c00U;
  const auto value =
      finite ? std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F) : magnitude | 0x7f800000U;
  return std::bit_cast<float>(value | std::uint32_t{bits & 0x8000U} << 16);
}

}  // namespace specmoe::kernels
