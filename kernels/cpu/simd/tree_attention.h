#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// The logical positions one query row sees: [first, committed) of the prefix, then its staged ancestors.
struct RowSpan {
  std::int64_t first;
  std::int64_t end;
};

inline RowSpan row_span(const AttentionRule& rule, std::int64_t committed, const std::uint64_t* ancestors,
                        std::int64_t words) {
  std::int64_t end = committed;
  for (std::int64_t w = 0; w < words; ++w) end += std::popcount(ancestors[w]);
  return {first_seen(rule, end), end};
}

/// rows[i] = array row of logical position chunk + i, for the positions of the chunk below `end`.
inline void gather_rows(std::int64_t committed, const std::uint64_t* ancestors, std::int64_t words, std::int64_t chunk,
                        std::int64_t end, std::int32_t* rows) {
  std::int64_t logical = chunk;
  for (; logical < std::min(committed, end); ++logical) rows[logical - chunk] = static_cast<std::int32_t>(logical);
  std::int64_t skip = std::max<std::int64_t>(0, chunk - committed);
  for (std::int64_t w = 0; w < words && logical < end; ++w) {
    for (std::uint64_t bits = ancestors[w]; bits != 0 && logical < end; bits &= bits - 1) {
      if (skip-- > 0) continue;
      rows[logical++ - chunk] = static_cast<std::int32_t>(committed + w * 64 + std::countr_zero(bits));
    }
  }
}

inline constexpr std::int64_t kQueries = 64;  // that run at once

/// The rows of one call that are computed together: a chunk of the prefix comes from memory once for all of them.
template <class Element>
struct RowBlock {
  std::int64_t committed;
  CachedRows<Element> keys;
  CachedRows<Element> values;
  const AttentionRule& rule;
  std::int64_t rows;
  std::int64_t heads;  // query heads of a row
  const std::uint64_t* ancestors;
  std::int64_t words;
  RowSpan* spans;  // [rows]
};

/// A chunk that reaches past the prefix, or that not all rows see whole: every row sees its own part of it.
template <class Element>
void attend_row(const RowBlock<Element>& block, std::int64_t t, std::int64_t chunk, Query* query) {
  const std::int64_t begin = std::max<std::int64_t>(0, block.spans[t].first - chunk);
  const std::int64_t end = std::min(kChunk, block.spans[t].end - chunk);
  if (begin >= end) return;
  std::int32_t rows[kChunk];
  gather_rows(block.committed, block.ancestors + t * block.words, block.words, chunk, chunk + end, rows);
  attend_together(query + t * block.heads, block.heads, Gathered<Element>{block.keys, rows},
                  Gathered<Element>{block.values, rows}, begin, end, block.rule);
}

template <class Element>
void attend_block(const RowBlock<Element>& block, Query* query) {
  std::int64_t earliest = block.committed;  // first position that any row sees
  std::int64_t latest = 0;                  // first position that all rows see
  std::int64_t longest = 0;
  for (std::int64_t t = 0; t < block.rows; ++t) {
    block.spans[t] = row_span(block.rule, block.committed, block.ancestors + t * block.words, block.words);
    earliest = std::min(earliest, block.spans[t].first);
    latest = std::max(latest, block.spans[t].first);
    longest = std::max(longest, block.spans[t].end);
  }
  for (std::int64_t chunk = earliest / kChunk * kChunk; chunk < longest; chunk += kChunk) {
    if (latest <= chunk && chunk + kChunk <= block.committed) {
      attend_together(query, block.rows * block.heads, Contiguous<Element>{block.keys, chunk},
                      Contiguous<Element>{block.values, chunk}, 0, kChunk, block.rule);
    } else {
      for (std::int64_t t = 0; t < block.rows; ++t) attend_row(block, t, chunk, query);
    }
  }
  for (std::int64_t i = 0; i < block.rows * block.heads; ++i) {
    for_each_vector(0, block.rule.value_dim, [&](std::int64_t d, auto part) {
      part.store(query[i].out + d, div(part.load(query[i].out + d), broadcast(query[i].sum)));
    });
  }
}

template <class Element>
void attend_rows(Rows<const float> query, const AttentionHead& head, const std::uint64_t* ancestors, std::int64_t words,
                 const AttentionRule& rule, Rows<float> out) {
  const std::int64_t heads = query.cols / rule.head_dim;
  SPECMOE_CHECK(heads <= kQueries, "attention: at most ", kQueries, " query heads share a kv head, got ", heads);
  const CachedRows<Element> keys = {static_cast<const Element*>(head.keys), head.key_stride, head.key_scales};
  const CachedRows<Element> values = {static_cast<const Element*>(head.values), head.value_stride, head.value_scales};
  Query queries[kQueries];
  RowSpan spans[kQueries];
  const std::int64_t rows_at_once = kQueries / heads;
  for (std::int64_t t = 0; t < query.rows; t += rows_at_once) {
    const std::int64_t rows = std::min(rows_at_once, query.rows - t);
    for (std::int64_t i = 0; i < rows * heads; ++i) {
      const std::int64_t h = i % heads;
      queries[i] = {query.row(t + i / heads) + h * rule.head_dim, out.row(t + i / heads) + h * rule.value_dim,
                    -INFINITY, 0.0f};
      std::fill_n(queries[i].out, rule.value_dim, 0.0f);
      if (rule.sinks == nullptr) continue;
      queries[i].largest = rule.sinks[h];  // as if seen before any key
      queries[i].sum = 1.0f;
    }
    attend_block<Element>({head.committed, keys, values, rule, rows, heads, ancestors + t * words, words, spans},
                          queries);
  }
}

void tree_attention_simd(Rows<const float> query, const AttentionHead& head, const std::uint64_t* ancestors,
                         std::int64_t words, const AttentionRule& rule, Rows<float> out, float* /*scratch*/) {
  const auto attend = head.dtype == DType::kFloat32    ? attend_rows<float>
                      : head.dtype == DType::kBFloat16 ? attend_rows<BFloat16>
                                                       : attend_rows<std::int8_t>;
  attend(query, head, ancestors, words, rule, out);
}

SPECMOE_KERNEL(tree_attention, kBackend, tree_attention_simd);

}  // namespace specmoe::kernels::SPECMOE_SIMD
