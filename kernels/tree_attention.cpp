#include "kernels/tree_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/element.h"

namespace specmoe::kernels {

constinit Kernel<void(Rows<const float>, const AttentionHead&, const std::uint64_t*, std::int64_t, const AttentionRule&,
                      Rows<float>, float*)>
    tree_attention("tree_attention");

std::int64_t attention_scratch_floats(std::int64_t positions, std::int64_t head_dim) {
  constexpr std::int64_t kQueryBlock = 16;
  return positions + kQueryBlock * (head_dim + 128);
}

void store_cached_row(const float* row, std::int64_t n, DType dtype, void* to, float* scale) {
  if (dtype == DType::kFloat32) {
    std::memcpy(to, row, static_cast<std::size_t>(n) * sizeof(float));
  } else if (dtype == DType::kBFloat16) {
    for (std::int64_t d = 0; d < n; ++d) static_cast<BFloat16*>(to)[d].bits = float_to_bfloat16(row[d]);
  } else {
    float largest = 0;
    for (std::int64_t d = 0; d < n; ++d) {
      const float value = std::abs(row[d]);
      if (!(value <= largest) && !std::isnan(largest)) largest = value;
    }
    const Int8Scale rule(largest);
    *scale = rule.scale;
    for (std::int64_t d = 0; d < n; ++d) static_cast<std::int8_t*>(to)[d] = round_to_int8(row[d] * rule.factor);
  }
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

/// The keys or the values of a head, element by element.
class CachedRows {
 public:
  CachedRows(DType dtype, const void* data, std::int64_t stride, const float* scales)
      : dtype_(dtype), data_(data), stride_(stride), scales_(scales) {}

  float at(std::int64_t row, std::int64_t d) const {
    const std::int64_t i = row * stride_ + d;
    if (dtype_ == DType::kFloat32) return static_cast<const float*>(data_)[i];
    if (dtype_ == DType::kBFloat16) return bfloat16_to_float(static_cast<const BFloat16*>(data_)[i].bits);
    return static_cast<float>(static_cast<const std::int8_t*>(data_)[i]) * scales_[row];
  }

 private:
  DType dtype_;
  const void* data_;
  std::int64_t stride_;
  const float* scales_;
};

void attend(const float* query, const AttentionHead& head, const std::uint64_t* ancestors, std::int64_t words,
            const AttentionRule& rule, float sink, float* out, float* scores) {
  const CachedRows keys(head.dtype, head.keys, head.key_stride, head.key_scales);
  const CachedRows values(head.dtype, head.values, head.value_stride, head.value_scales);
  float largest = sink;
  for_each_key(head.committed, ancestors, words, rule, [&](std::int64_t logical, std::int64_t row) {
    float sum = 0;
    for (std::int64_t d = 0; d < rule.head_dim; ++d) sum += query[d] * keys.at(row, d);
    scores[logical] = sum * rule.scale;
    largest = std::max(largest, scores[logical]);
  });
  std::fill(out, out + rule.value_dim, 0.0f);
  float total = std::exp(sink - largest);
  for_each_key(head.committed, ancestors, words, rule, [&](std::int64_t logical, std::int64_t row) {
    const float share = std::exp(scores[logical] - largest);
    total += share;
    for (std::int64_t d = 0; d < rule.value_dim; ++d) out[d] += share * values.at(row, d);
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
