#pragma once

// Shared by every vector instruction set: see kernels/cpu/avx2.cpp.

namespace specmoe::kernels::SPECMOE_SIMD {

/// Softmax runs over chunks of logical positions with running maximum, sum and output; chunks begin at multiples of
/// kChunk, so how a row's keys are grouped depends on their logical positions alone.
inline constexpr std::int64_t kChunk = 64;

/// The keys or the values of a head.
template <class Element>
struct CachedRows {
  const Element* data;
  std::int64_t stride;
  const float* scales;  // int8
};

/// Rows of a chunk that lie one after another.
template <class Element>
struct Contiguous {
  CachedRows<Element> all;
  std::int64_t first;

  const Element* operator()(std::int64_t i) const { return all.data + (first + i) * all.stride; }
  /// Row i into the second-level cache; any i will do.
  void fetch(std::int64_t i) const {
    const auto* row = reinterpret_cast<const std::byte*>((*this)(i));
    for (std::int64_t byte = 0; byte < all.stride * std::int64_t{sizeof(Element)}; byte += 64) prefetch(row + byte);
  }
  /// x[i] *= scale of row i for i in [begin, end).
  void scale(float* x, std::int64_t begin, std::int64_t end) const {
    for_each_vector(begin, end, [&](std::int64_t i, auto part) {
      part.store(x + i, mul(part.load(x + i), part.load(all.scales + first + i)));
    });
  }
};

/// Rows that lie anywhere.
template <class Element>
struct Gathered {
  CachedRows<Element> all;
  const std::int32_t* rows;

  const Element* operator()(std::int64_t i) const { return all.data + rows[i] * all.stride; }
  void fetch(std::int64_t /*i*/) const {}
  void scale(float* x, std::int64_t begin, std::int64_t end) const {
    for (std::int64_t i = begin; i < end; ++i) x[i] *= all.scales[rows[i]];
  }
};

template <class Element>
inline constexpr bool kScaled = sizeof(Element) == 1;

/// Lane i of the result is the sum of all lanes of x[i].
inline __m256 sum_each(const Floats* x) {
  const __m256 a = _mm256_hadd_ps(half_sum(x[0]), half_sum(x[1]));
  const __m256 b = _mm256_hadd_ps(half_sum(x[2]), half_sum(x[3]));
  const __m256 c = _mm256_hadd_ps(half_sum(x[4]), half_sum(x[5]));
  const __m256 d = _mm256_hadd_ps(half_sum(x[6]), half_sum(x[7]));
  const __m256 ab = _mm256_hadd_ps(a, b);
  const __m256 cd = _mm256_hadd_ps(c, d);
  return _mm256_add_ps(_mm256_permute2f128_ps(ab, cd, 0x20), _mm256_permute2f128_ps(ab, cd, 0x31));
}

/// One query head of one row and its running softmax. Without initial values: there is room for many and mostly few
/// are used.
struct Query {
  const float* query;
  float* out;
  float largest;
  float sum;
};

/// Scores, then shares, of one chunk.
struct alignas(64) ChunkScores {
  float at[kChunk + 8];
};

/// Fetches the rows of the next chunk while queries go over this one in `turns` turns, evenly spread: the processor's
/// own prefetchers leave a core at half of what it can read here, and a burst of fetches waits for itself.
class FetchAhead {
 public:
  explicit FetchAhead(std::int64_t turns) : turns_(turns) {}

  /// To be called for every `positions` positions of a turn.
  template <class Cached>
  void advance(const Cached& rows, std::int64_t positions) {
    for (due_ += positions; due_ >= turns_; due_ -= turns_) rows.fetch(next_++);
  }

 private:
  std::int64_t turns_;
  std::int64_t due_ = 0;
  std::int64_t next_ = kChunk;
};

/// scores[q][i] = query q . key(i) for i in [begin, end); up to 7 further scores are written as well. Q is 1 or 2: two
/// queries share what is loaded of a key. Every product is one chain over the vectors of the head, then one tree.
template <int Q, class Keys>
void score_chunk(const Query* query, const Keys& key, std::int64_t begin, std::int64_t end, std::int64_t head_dim,
                 ChunkScores* scores, FetchAhead& ahead) {
  constexpr int kPositions = kWidth == 8 && Q == 2 ? 4 : 8;
  for (std::int64_t i = begin; i < end; i += kPositions) {
    ahead.advance(key, kPositions);
    decltype(key(i)) keys[kPositions];
    Floats sums[Q * kPositions];
#pragma GCC unroll 8
    for (int j = 0; j < kPositions; ++j) keys[j] = key(std::min(i + j, end - 1));
#pragma GCC unroll 16
    for (int j = 0; j < Q * kPositions; ++j) sums[j] = zeros();
    for_each_vector(0, head_dim, [&](std::int64_t d, auto part) {
      Floats input[Q];
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q) input[q] = part.load(query[q].query + d);
#pragma GCC unroll 8
      for (int j = 0; j < kPositions; ++j) {
        const Floats weight = part.load(keys[j] + d);
#pragma GCC unroll 2
        for (int q = 0; q < Q; ++q) sums[q * kPositions + j] = fma(input[q], weight, sums[q * kPositions + j]);
      }
    });
    if constexpr (kPositions == 8) {
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q) _mm256_storeu_ps(scores[q].at + i, sum_each(sums + q * kPositions));
    } else {
      const __m256 both = sum_each(sums);
      _mm_storeu_ps(scores[0].at + i, _mm256_castps256_ps128(both));
      _mm_storeu_ps(scores[Q - 1].at + i, _mm256_extractf128_ps(both, 1));
    }
  }
}

/// Turns the scores of a chunk into shares relative to the new running maximum; returns what the old sums keep.
inline float share_chunk(std::int64_t begin, std::int64_t end, float scale, Query& query, ChunkScores& scores) {
  if (begin > 0) std::fill(scores.at, scores.at + begin, -INFINITY);
  if (end < kChunk) std::fill(scores.at + end, scores.at + kChunk, -INFINITY);
  constexpr int kParts = kChunk / kWidth;
  Floats x[kParts];
  Floats top = broadcast(query.largest);
#pragma GCC unroll 8
  for (int i = 0; i < kParts; ++i) {
    x[i] = mul(load(scores.at + i * kWidth), broadcast(scale));
    top = max(x[i], top);
  }
  const float largest = max_lanes(top);
  Floats sum = zeros();
#pragma GCC unroll 8
  for (int i = 0; i < kParts; ++i) {
    x[i] = exponential(sub(x[i], broadcast(largest)));
    store(scores.at + i * kWidth, x[i]);
    sum = add(sum, x[i]);
  }
  const float keep = query.largest == largest ? 1.0f : first_lane(exponential(broadcast(query.largest - largest)));
  query.sum = query.sum * keep + sum_lanes(sum);
  query.largest = largest;
  return keep;
}

/// out[q][column, column + V * kWidth) = keep[q] * out + the sum over i of share[q][i] * value(i), in two chains, one
/// for even and one for odd positions.
template <int Q, int V, class Values, class Part>
void mix_columns(const Query* query, const ChunkScores* share, const float* keep, const Values& value,
                 std::int64_t begin, std::int64_t end, std::int64_t column, Part part, FetchAhead& ahead) {
  Floats sums[2][Q][V];
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[0][q][v] = sums[1][q][v] = zeros();
  }
  const auto add_position = [&](std::int64_t i, Floats(&chain)[Q][V]) __attribute__((always_inline)) {
    const auto* from = value(i) + column;
    Floats weight[Q];
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q) weight[q] = broadcast(share[q].at[i]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Floats x = part.load(from + v * kWidth);
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q) chain[q][v] = fma(weight[q], x, chain[q][v]);
    }
  };
  std::int64_t i = begin;
  if (i % 2 != 0 && i < end) add_position(i++, sums[1]);
  for (; i + 2 <= end; i += 2) {
    ahead.advance(value, 2);
    add_position(i, sums[0]);
    add_position(i + 1, sums[1]);
  }
  if (i < end) add_position(i, sums[0]);
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* to = query[q].out + column + v * kWidth;
      part.store(to, fma(broadcast(keep[q]), part.load(to), add(sums[0][q][v], sums[1][q][v])));
    }
  }
}

/// How many vectors of columns are mixed at once.
template <int Q>
inline constexpr int kMixedColumns = kWidth == 8 && Q == 2 ? 2 : 4;

/// How often mix_columns goes over the positions of a chunk for Q queries.
template <int Q>
std::int64_t sweeps(std::int64_t value_dim) {
  const std::int64_t vectors = (value_dim + kWidth - 1) / kWidth;
  const std::int64_t whole = value_dim / kWidth / kMixedColumns<Q>;
  return whole + (vectors - whole * kMixedColumns<Q>);
}

template <int Q, template <class> class Cached, class Element>
void attend_chunk(Query* query, const Cached<Element>& key, const Cached<Element>& value, std::int64_t begin,
                  std::int64_t end, const AttentionRule& rule, FetchAhead& keys_ahead, FetchAhead& values_ahead) {
  ChunkScores scores[Q];
  score_chunk<Q>(query, key, begin, end, rule.head_dim, scores, keys_ahead);
  float keep[Q];
  for (int q = 0; q < Q; ++q) {
    if constexpr (kScaled<Element>) key.scale(scores[q].at, begin, end);
    keep[q] = share_chunk(begin, end, rule.scale, query[q], scores[q]);
    if constexpr (kScaled<Element>) value.scale(scores[q].at, begin, end);
  }
  constexpr int kColumns = kMixedColumns<Q>;
  std::int64_t d = 0;
  for (; d + kColumns * kWidth <= rule.value_dim; d += kColumns * kWidth) {
    mix_columns<Q, kColumns>(query, scores, keep, value, begin, end, d, WholeVector{}, values_ahead);
  }
  for_each_vector(d, rule.value_dim, [&](std::int64_t column, auto part) {
    mix_columns<Q, 1>(query, scores, keep, value, begin, end, column, part, values_ahead);
  });
}

/// Attends with `count` queries that see the same positions [begin, end) of a chunk.
template <class Cached>
void attend_together(Query* query, std::int64_t count, const Cached& key, const Cached& value, std::int64_t begin,
                     std::int64_t end, const AttentionRule& rule) {
  FetchAhead keys_ahead((count + 1) / 2);
  FetchAhead values_ahead(count / 2 * sweeps<2>(rule.value_dim) + count % 2 * sweeps<1>(rule.value_dim));
  std::int64_t i = 0;
  for (; i + 2 <= count; i += 2) attend_chunk<2>(query + i, key, value, begin, end, rule, keys_ahead, values_ahead);
  if (i < count) attend_chunk<1>(query + i, key, value, begin, end, rule, keys_ahead, values_ahead);
}

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
