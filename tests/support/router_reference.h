#pragma once

#include <algorithm>
#include <numeric>

#include "tests/support/kernel_data.h"

namespace specmoe::kernels {

/// Expects what a softmax router gives for logits [rows, experts]: the k largest, of equal ones the lower id, and their
/// share of all experts or, renormalised, of the chosen ones.
inline void expect_routing(const std::vector<std::int32_t>& expert, const std::vector<float>& weight,
                           const std::vector<float>& logits, std::int64_t experts, std::int64_t k, bool renormalise) {
  for (std::int64_t t = 0; t < static_cast<std::int64_t>(logits.size()) / experts; ++t) {
    const float* row = logits.data() + t * experts;
    std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [row](auto a, auto b) { return row[a] > row[b]; });
    double total = 0, kept = 0;
    for (std::int64_t e = 0; e < experts; ++e) total += std::exp(double{row[e]});
    for (std::int64_t r = 0; r < k; ++r) kept += std::exp(double{row[order[r]]});
    for (std::int64_t r = 0; r < k; ++r) {
      EXPECT_EQ(expert[t * k + r], order[r]);
      expect_close(weight[t * k + r], std::exp(double{row[order[r]]}) / (renormalise ? kept : total), kElementwise,
                   "router weight");
    }
  }
}

}  // namespace specmoe::kernels
