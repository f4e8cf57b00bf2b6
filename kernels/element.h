#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace specmoe::kernels {

inline float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// Rounds to nearest, ties to even; a NaN stays a NaN.
inline std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto rounded = static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  return std::isnan(value) ? static_cast<std::uint16_t>((bits >> 16) | 0x40U) : rounded;
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
