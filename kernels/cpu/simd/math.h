#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// The first n < kWidth narrow elements, widened; the other lanes are zero.
template <class Element>
Floats load_first(const Element* p, std::int64_t n) {
  Element part[kWidth] = {};
  std::copy_n(p, n, part);
  return load(part);
}

/// A whole vector in memory, and one of which only the first n < kWidth elements are there.
struct WholeVector {
  template <class Element>
  Floats load(const Element* p) const {
    return SPECMOE_SIMD::load(p);
  }
  void store(float* p, Floats x) const { SPECMOE_SIMD::store(p, x); }
  float sum(Floats x) const { return sum_lanes(x); }
};

struct PartVector {
  std::int64_t n;
  template <class Element>
  Floats load(const Element* p) const {
    return load_first(p, n);
  }
  void store(float* p, Floats x) const { store_first(p, x, n); }
  float sum(Floats x) const { return sum_lanes(keep_first(x, n)); }
};

/// visit(i, part) for the vectors that cover [begin, end), part being how to load and store the vector at i.
template <class Visit>
[[gnu::always_inline]] inline void for_each_vector(std::int64_t begin, std::int64_t end, const Visit& visit) {
  std::int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) visit(i, WholeVector{});
  if (i < end) visit(i, PartVector{end - i});
}

/// e^x within 2 ulp for x up to 88.37 (larger x give e^88.37); 0 below -87.33, where floats become subnormal; NaN
/// stays. x = n ln 2 + r with |r| <= ln 2 / 2, then the polynomial of Cephes' expf for e^r, then the exponent moved by
/// n.
inline Floats exponential(Floats x) {
  const Floats lowest = broadcast(-87.33f);
  const Floats clamped = max(lowest, min(broadcast(88.37f), x));
  const Floats n = round(mul(clamped, broadcast(1.44269504f)));
  Floats r = fnma(n, broadcast(0.693359375f), clamped);
  r = fnma(n, broadcast(-2.12194440e-4f), r);
  Floats y = broadcast(1.9875691500e-4f);
  y = fma(y, r, broadcast(1.3981999507e-3f));
  y = fma(y, r, broadcast(8.3334519073e-3f));
  y = fma(y, r, broadcast(4.1665795894e-2f));
  y = fma(y, r, broadcast(1.6666665459e-1f));
  y = fma(y, r, broadcast(5.0000001201e-1f));
  y = add(fma(y, mul(r, r), r), broadcast(1.0f));
  return zero_below(x, scale_by_power_of_2(y, n), lowest);
}

/// x / (1 + e^-y)
inline Floats over_logistic(Floats x, Floats y) { return div(x, add(broadcast(1.0f), exponential(sub(zeros(), y)))); }

inline Floats silu(Floats x) { return over_logistic(x, x); }

/// x / 2 * (1 + tanh(u)) with tanh(u) = 2 / (1 + e^(-2 u)) - 1, so that nothing cancels.
inline Floats gelu_tanh(Floats x) {
  const Floats cubic = mul(mul(mul(broadcast(0.044715f), x), x), x);
  return over_logistic(x, mul(broadcast(1.5957691216f), add(x, cubic)));
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
