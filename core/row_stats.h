#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/decide.h"

namespace specmoe {

/// ln(x) for x > 0 within 1e-7 relative to max(1, |ln x|), in operations that compilers turn into vector code; finite
/// for x = 0, so that x ln x is 0 there.
inline float fast_log(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  // The mantissa is taken in [sqrt(1/2), sqrt(2)), where the series below converges fast.
  const std::int32_t exponent = (bits - 0x3f3504f3) >> 23;
  const auto mantissa =
      std::bit_cast<float>(bits - static_cast<std::int32_t>(static_cast<std::uint32_t>(exponent) << 23));
  const float s = (mantissa - 1.0F) / (mantissa + 1.0F);
  const float s2 = s * s;
  const float series = 1.0F + s2 * (1.0F / 3 + s2 * (1.0F / 5 + s2 * (1.0F / 7 + s2 * (1.0F / 9))));
  return static_cast<float>(exponent) * 0.693147182F + 2.0F * s * series;
}

/// Sum of float terms over [lo, hi), at most kDecideBlock of them. They are computed before they are added up, so that
/// compilers turn both loops into vector code.
template <class Term>
double float_block_sum(int lo, int hi, const Term& term) {
  float terms[kDecideBlock];
  const int count = hi - lo;
  for (int i = 0; i < count; ++i) terms[i] = term(lo + i);
  return read_block(terms, count).sum;
}

/// Sum of float terms over a whole vocabulary.
template <class Term>
double float_sum(int vocab, const Term& term) {
  double sum = 0.0;
  for (int lo = 0; lo < vocab; lo += kDecideBlock) {
    sum += float_block_sum(lo, std::min(lo + kDecideBlock, vocab), term);
  }
  return sum;
}

/// Sum of f(p[x], q[x]) over the vocabulary; p is dense. Float rows are summed in float, others in double.
template <class Real, class F>
double pair_sum(const ProbRow<Real>& p, const ProbRow<Real>& q, const F& f) {
  const Real* a = p.dense().data();
  if (q.is_point()) {
    return sum_terms<double>(p.vocab(),
                             [&](TokenId x) { return f(static_cast<double>(a[x]), static_cast<double>(q[x])); });
  }
  const Real* b = q.dense().data();
  if constexpr (std::is_same_v<Real, float>) {
    return float_sum(p.vocab(), [&f, a, b](TokenId x) { return f(a[x], b[x]); });
  } else {
    return sum_terms<double>(p.vocab(),
                             [&f, a, b](TokenId x) { return f(static_cast<double>(a[x]), static_cast<double>(b[x])); });
  }
}

/// The entropy of a row, -sum p ln p in nats, summed only as far as questions about it need.
template <class Real>
class RunningEntropy {
 public:
  explicit RunningEntropy(const ProbRow<Real>& row) : row_(row), done_(row.is_point() ? row.vocab() : 0) {}

  bool exceeds(double bound) {
    while (sum_ <= bound && done_ < row_.vocab()) add_block();
    return sum_ > bound;
  }
  double value() {
    while (done_ < row_.vocab()) add_block();
    return sum_;
  }

 private:
  void add_block() {
    const int hi = std::min(done_ + kDecideBlock, row_.vocab());
    const Real* p = row_.dense().data();
    if constexpr (std::is_same_v<Real, float>) {
      sum_ -= float_block_sum(done_, hi, [p](TokenId x) { return p[x] * fast_log(p[x]); });
    } else {
      for (TokenId x = done_; x < hi; ++x) {
        const auto value = static_cast<double>(p[x]);
        if (value > 0.0) sum_ -= value * std::log(value);
      }
    }
    done_ = hi;
  }

  ProbRow<Real> row_;
  int done_;
  double sum_ = 0.0;
};

template <class Real>
double entropy(const ProbRow<Real>& row) {
  return RunningEntropy<Real>(row).value();
}

/// KL(q || p) = sum q ln(q / p) in nats, finite: where p has no mass, ln p counts as -88, the least of a float.
template <class Real>
double divergence(const ProbRow<Real>& q, const ProbRow<Real>& p) {
  if (q.is_point()) return -std::log(std::max(static_cast<double>(p[q.point_token()]), std::exp(-88.0)));
  if (p.is_point()) return 88.0 * (1.0 - static_cast<double>(q[p.point_token()]));
  return pair_sum(q, p, [](auto drawn, auto target) {
    if constexpr (std::is_same_v<decltype(drawn), float>) {
      return drawn * (fast_log(drawn) - fast_log(target));
    } else {
      return drawn > 0.0 ? drawn * (std::log(drawn) - (target > 0.0 ? std::log(target) : -88.0)) : 0.0;
    }
  });
}

/// 1/2 sum |p - q|.
template <class Real>
double total_variation(const ProbRow<Real>& p, const ProbRow<Real>& q) {
  if (p.is_point()) return 1.0 - static_cast<double>(q[p.point_token()]);
  if (q.is_point()) return 1.0 - static_cast<double>(p[q.point_token()]);
  return 0.5 * pair_sum(p, q, [](auto target, auto drawn) { return std::abs(target - drawn); });
}

/// The largest probability of a row.
template <class Real>
double peak(const ProbRow<Real>& row) {
  return static_cast<double>(row[argmax_token(row)]);
}

/// Tokens that come before x when a row is sorted, likeliest first, equals by id.
template <class Real>
int rank_of(const ProbRow<Real>& row, TokenId x) {
  if (row.is_point()) return x == row.point_token() ? 0 : (x < row.point_token() ? x + 1 : x);
  const Real* values = row.dense().data();
  int rank = 0;
  for (TokenId y = 0; y < x; ++y) rank += values[y] >= values[x] ? 1 : 0;
  for (TokenId y = x + 1; y < row.vocab(); ++y) rank += values[y] > values[x] ? 1 : 0;
  return rank;
}

}  // namespace specmoe
