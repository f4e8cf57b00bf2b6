#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Sum of squares in four vectors of running sums: which lane an element goes to depends on its index alone.
inline float sum_of_squares(const float* x, std::int64_t n) {
  Floats a = zeros(), b = zeros(), c = zeros(), d = zeros();
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    const Floats x0 = load(x + i), x1 = load(x + i + kWidth), x2 = load(x + i + 2 * kWidth),
                 x3 = load(x + i + 3 * kWidth);
    a = fma(x0, x0, a);
    b = fma(x1, x1, b);
    c = fma(x2, x2, c);
    d = fma(x3, x3, d);
  }
  for (; i < n; i += kWidth) {
    const Floats x0 = n - i >= kWidth ? load(x + i) : load_first(x + i, n - i);
    a = fma(x0, x0, a);
  }
  return sum_lanes(add(add(a, b), add(c, d)));
}

void rms_norm_simd(Rows<const float> x, const float* weight, float eps, Rows<float> out) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* in = x.row(t);
    float* to = out.row(t);
    const float mean = sum_of_squares(in, x.cols) / static_cast<float>(x.cols);
    const Floats scale = broadcast(1.0f / std::sqrt(mean + eps));
    for_each_vector(0, x.cols, [&](std::int64_t i, auto part) {
      part.store(to + i, mul(part.load(weight + i), mul(part.load(in + i), scale)));
    });
  }
}

/// The same grouping as sum_of_squares.
inline float sum_of(const float* x, std::int64_t n) {
  Floats a = zeros(), b = zeros(), c = zeros(), d = zeros();
  std::int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    a = add(load(x + i), a);
    b = add(load(x + i + kWidth), b);
    c = add(load(x + i + 2 * kWidth), c);
    d = add(load(x + i + 3 * kWidth), d);
  }
  for (; i < n; i += kWidth) a = add(n - i >= kWidth ? load(x + i) : load_first(x + i, n - i), a);
  return sum_lanes(add(add(a, b), add(c, d)));
}

void layer_norm_simd(Rows<const float> x, const float* weight, const float* bias, float eps, Rows<float> out) {
  const auto width = static_cast<float>(x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    float* to = out.row(t);
    const Floats mean = broadcast(sum_of(x.row(t), x.cols) / width);
    for_each_vector(0, x.cols,
                    [&](std::int64_t i, auto part) { part.store(to + i, sub(part.load(x.row(t) + i), mean)); });
    const Floats scale = broadcast(1.0f / std::sqrt(sum_of_squares(to, x.cols) / width + eps));
    for_each_vector(0, x.cols, [&](std::int64_t i, auto part) {
      part.store(to + i, fma(part.load(weight + i), mul(part.load(to + i), scale), part.load(bias + i)));
    });
  }
}

void rope_simd(Rows<float> x, const float* cos_sin, std::int64_t half, const std::int32_t* position) {
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const float* cosine = cos_sin + position[t] * 2 * half;
    const float* sine = cosine + half;
    float* first = x.row(t);
    float* second = first + half;
    for_each_vector(0, half, [&](std::int64_t i, auto part) {
      const Floats x1 = part.load(first + i), x2 = part.load(second + i);
      const Floats c = part.load(cosine + i), s = part.load(sine + i);
      part.store(first + i, fnma(x2, s, mul(x1, c)));
      part.store(second + i, fma(x1, s, mul(x2, c)));
    });
  }
}

SPECMOE_KERNEL(rms_norm, kBackend, rms_norm_simd);
SPECMOE_KERNEL(layer_norm, kBackend, layer_norm_simd);
SPECMOE_KERNEL(rope, kBackend, rope_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
