#include "kernels/tree_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const AttentionHead&, std::int64_t, const std::uint64_t*, std::int64_t,
                      const std::int32_t*, const std::int32_t*, std::int64_t, float, std::int64_t, Rows<float>, float*)>
    tree_attention("tree_attention");

std::int64_t attention_scratch_floats(std::int64_t positions, std::int64_t head_dim) {
  constexpr std::int64_t kQueryBlock = 16;
  return positions + kQueryBlock * (head_dim + 128);
}

namespace {

/// Calls visit(logical position, row of the arrays) for every key of one query row, in logical order.
template <class Visit>
void for_each_key(std::int64_t committed, const std::uint64_t* ancestors, std::int64_t words, std::int64_t window,
                  Visit visit) {
  std::int64_t length = committed;
  for (std::int64_t w = 0; w < words; ++w) length += std::popcount(ancestors[w]);
  const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, length - window) : 0;
  for (std::int64_t i = first; i < committed; ++i) visit(i, i);
  std::int64_t logical = committed;
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::uint64_t bits = ancestors[w]; bits != 0; bits &= bits - 1, ++logical) {
      if (logical >= first) visit(logical, committed + w * 64 + std::countr_zero(bits));
    }
  }
}

void attend(const float* query, const AttentionHead& head, const std::uint64_t* ancestors, std::int64_t words,
            std::int64_t window, float scale, std::int64_t head_dim, float* out, float* scores) {
  float largest = -INFINITY;
  for_each_key(head.committed, ancestors, words, window, [&](std::int64_t logical, std::int64_t row) {
    float sum = 0;
    for (std::int64_t d = 0; d < head_dim; ++d) sum += query[d] * head.keys[row * head.stride + d];
    scores[logical] = sum * scale;
    largest = std::max(largest, scores[logical]);
  });
  std::fill(out, out + head_dim, 0.0f);
  float total = 0;
  for_each_key(head.committed, ancestors, words, window, [&](std::int64_t logical, std::int64_t row) {
    const float share = std::exp(scores[logical] - largest);
    total += share;
    for (std::int64_t d = 0; d < head_dim; ++d) out[d] += share * head.values[row * head.stride + d];
  });
  for (std::int64_t d = 0; d < head_dim; ++d) out[d] /= total;
}

void tree_attention_scalar(Rows<const float> query, const AttentionHead& head, std::int64_t /*staged*/,
                           const std::uint64_t* ancestors, std::int64_t words, const std::int32_t* /*depth*/,
                           const std::int32_t* /*staged_depth*/, std::int64_t window, float scale,
                           std::int64_t head_dim, Rows<float> out, float* scratch) {
  for (std::int64_t t = 0; t < query.rows; ++t) {
    for (std::int64_t d = 0; d < query.cols; d += head_dim) {
      attend(query.row(t) + d, head, ancestors + t * words, words, window, scale, head_dim, out.row(t) + d, scratch);
    }
  }
}

SPECMOE_KERNEL(tree_attention, Backend::kScalar, tree_attention_scalar);

}  // namespace
}  // namespace specmoe::kernels
