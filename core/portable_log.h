#pragma once

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace specmoe {

/// ln(x) for x > 0, not denormal, within 3e-16 relative to max(1, |ln x|): in plain operations in one order, so that it
/// has the same bits on every machine and device, which no library promises of its own.
SPECMOE_HD inline double portable_log(double x) {
  const auto bits = std::bit_cast<std::int64_t>(x);
  // The mantissa is taken in [sqrt(1/2), sqrt(2)), where the series below converges fast.
  const std::int64_t exponent = (bits - 0x3fe6a09e667f3bcd) >> 52;
  const auto mantissa =
      std::bit_cast<double>(bits - static_cast<std::int64_t>(static_cast<std::uint64_t>(exponent) << 52));
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double s2 = s * s;
  double series = 0.0;
  for (int k = 11; k >= 0; --k) series = series * s2 + 1.0 / (2 * k + 1);
  return static_cast<double>(exponent) * 0.69314718055994530942 + 2.0 * s * series;
}

}  // namespace specmoe
