#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// The largest element; -inf when there is none. NaN is passed over.
inline float largest(const float* x, std::int64_t n) {
  const Floats lowest = broadcast(-INFINITY);
  Floats a = lowest, b = lowest, c = lowest, d = lowest;
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    a = max(load(x + i), a);
    b = max(load(x + i + kWidth), b);
    c = max(load(x + i + 2 * kWidth), c);
    d = max(load(x + i + 3 * kWidth), d);
  }
  for (; i + kWidth <= n; i += kWidth) a = max(load(x + i), a);
  float result = max_lanes(max(max(a, b), max(c, d)));
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

inline std::int32_t first_equal(const float* x, std::int64_t n, float value) {
  const Floats wanted = broadcast(value);
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    if (const unsigned lanes = equal_lanes(load(x + i), wanted); lanes != 0) {
      return static_cast<std::int32_t>(i + std::countr_zero(lanes));
    }
  }
  for (; i < n; ++i) {
    if (x[i] == value) return static_cast<std::int32_t>(i);
  }
  return -1;
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
