#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

void row_argmax_simd(Rows<const float> x, std::int32_t* argmax) {
  for (std::int64_t t = 0; t < x.rows; ++t) argmax[t] = first_equal(x.row(t), x.cols, largest(x.row(t), x.cols));
}

/// to[i] = e^((x[i] - shift) * scale); returns the sum.
inline float exponentials(const float* x, std::int64_t n, float shift, float scale, float* to) {
  const Floats offset = broadcast(shift), factor = broadcast(scale);
  Floats a = zeros(), b = zeros();
  std::int64_t i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
    const Floats x0 = exponential(mul(sub(load(x + i), offset), factor));
    const Floats x1 = exponential(mul(sub(load(x + i + kWidth), offset), factor));
    store(to + i, x0);
    store(to + i + kWidth, x1);
    a = add(a, x0);
    b = add(b, x1);
  }
  float sum = sum_lanes(add(a, b));
  while (i < n) {
    const std::int64_t count = std::min<std::int64_t>(kWidth, n - i);
    float last[kWidth];
    std::fill(last, last + kWidth, -INFINITY);
    std::copy_n(x + i, count, last);
    const Floats y = exponential(mul(sub(load(last), offset), factor));
    store(last, y);
    std::copy_n(last, count, to + i);
    sum += sum_lanes(y);
    i += count;
  }
  return sum;
}

void sampling_probs_simd(const float* logits, std::int64_t vocab, const SamplingRule& rule, float* probs,
                         std::int32_t* scratch) {
  const float sum = exponentials(logits, vocab, largest(logits, vocab), 1.0f / rule.temperature, probs);
  const float scale = 1.0f / sum;
  std::int64_t i = 0;
  for (; i + kWidth <= vocab; i += kWidth) store(probs + i, mul(load(probs + i), broadcast(scale)));
  for (; i < vocab; ++i) probs[i] *= scale;
  cut_probabilities(probs, vocab, scale, rule, scratch);  // e^0 * scale is the largest
}

SPECMOE_KERNEL(row_argmax, kBackend, row_argmax_simd);
SPECMOE_KERNEL(sampling_probs, kBackend, sampling_probs_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
