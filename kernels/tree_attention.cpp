#include "kernels/tree_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const AttentionHead&, const std::uint64_t*, std::int64_t, const AttentionRule&,
                      Rows<float>, float*)>
    tree_attention("tree_attention");

std::int64_t attention_scratch_floats(std::int64_t positions, std::int64_t head_dim) {
  constexpr std::int64_t kQueryBlock = 16;
  return positions + kQueryBlock * (head_dim + 128);
}

namespace {

/// Calls visit(logical position, row of the arrays) for every key of one query row, in logical order.
template <class Visit>
void for_each_key(std::int64_t committed, const std::uint64_t* ancestors, std::int64_t words, const AttentionRule& rule,
                  Visit visit) {
  std::int64_t length = committed;
  for (std::int64_t w = 0; w < words; ++w) length += std::popcount(ancestors[w]);
  const std::int64_t first = first_seen(rule, length);
  for (std::int64_t i = first; i < committed; ++i) visit(i, i);
  std::int64_t logical = committed;
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::uint64_t bits = ancestors[w]; bits != 0; bits &= bits - 1, ++logical) {
      if (logical >= first) visit(logical, committed + w * 64 + std::countr_zero(bits));
    }
  }
}

void attend(const float* query, const AttentionHead& head, const std::uint64_t* ancestors, std::int64_t words,
            const AttentionRule& rule, float sink, float* out, float* scores) {
  float largest = sink;
  for_each_key(head.committed, ancestors, words, rule, [&](std::int64_t logical, std::int64_t row) {
    float sum = 0;
    for (std::int64_t d = 0; d < rule.head_dim; ++d) sum += query[d] * head.keys[row * head.key_stride + d];
    scores[logical] = sum * rule.scale;
    largest = std::max(largest, scores[logical]);
  });
  std::fill(out, out + rule.value_dim, 0.0f);
  float total = std::exp(sink - largest);
  for_each_key(head.committed, ancestors, words, rule, [&](std::int64_t logical, std::int64_t row) {
    const float share = std::exp(scores[logical] - largest);
    total += share;
    for (std::int64_t d = 0; d < rule.value_dim; ++d) out[d] += share * head.values[row * head.value_stride + d];
  });
  for (std::int64_t d = 0; d < rule.value_dim; ++d) out[d] /= total;
}

void tree_attention_scalar(Rows<const float> query, const AttentionHead& head, const std::uint64_t* ancestors,
                           std::int64_t words, const AttentionRule& rule, Rows<float> out, float* scratch) {
  for (std::int64_t t = 0; t < query.rows; ++t) {
    for (std::int64_t h = 0; h < query.cols / rule.head_dim; ++h) {
      const float sink = rule.sinks == nullptr ? -INFINITY : rule.sinks[h];
      attend(query.row(t) + h * rule.head_dim, head, ancestors + t * words, words, rule, sink,
             out.row(t) + h * rule.value_dim, scratch);
    }
  }
}

SPECMOE_KERNEL(tree_attention, Backend::kScalar, tree_attention_scalar);

}  // namespace
}  // namespace specmoe::kernels
