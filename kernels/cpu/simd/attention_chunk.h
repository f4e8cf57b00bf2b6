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
  static constexpr bool kScaled = sizeof(Element) == 1;
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
  static constexpr bool kScaled = sizeof(Element) == 1;
  CachedRows<Element> all;
  const std::int32_t* rows;

  const Element* operator()(std::int64_t i) const { return all.data + rows[i] * all.stride; }
  void fetch(std::int64_t /*i*/) const {}
  void scale(float* x, std::int64_t begin, std::int64_t end) const {
    for (std::int64_t i = begin; i < end; ++i) x[i] *= all.scales[rows[i]];
  }
};

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

/// The same of four.
inline __m128 sum_each_of_four(const Floats* x) {
  const __m256 a = _mm256_hadd_ps(half_sum(x[0]), half_sum(x[1]));
  const __m256 b = _mm256_hadd_ps(half_sum(x[2]), half_sum(x[3]));
  const __m256 ab = _mm256_hadd_ps(a, b);
  return _mm_add_ps(_mm256_castps256_ps128(ab), _mm256_extractf128_ps(ab, 1));
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

/// Most queries that share what is loaded of a key or value: more sums than theirs the registers do not hold.
inline constexpr int kSharing = 3;

/// Keeps the compiler from moving sums about when twelve of them fill the AVX2 registers: see multiply_add.
template <int kSums>
[[gnu::always_inline]] inline void hold(Floats& sum) {
  if constexpr (kWidth == 8 && kSums > 8) asm("" : "+x"(sum));
}

/// scores[q][i] = query q . key(i) for i in [begin, end); up to 7 further scores are written as well. Every product is
/// one chain over the vectors of the head, then one tree.
template <int Q, class Keys>
void score_chunk(const Query* query, const Keys& key, std::int64_t begin, std::int64_t end, std::int64_t head_dim,
                 ChunkScores* scores, FetchAhead& ahead) {
  constexpr int kPositions = kWidth == 8 && Q > 1 ? 4 : 8;
  for (std::int64_t i = begin; i < end; i += kPositions) {
    ahead.advance(key, kPositions);
    decltype(key(i)) keys[kPositions];
    Floats sums[Q][kPositions];
#pragma GCC unroll 8
    for (int j = 0; j < kPositions; ++j) {
      keys[j] = key(std::min(i + j, end - 1));
#pragma GCC unroll 3
      for (int q = 0; q < Q; ++q) sums[q][j] = zeros();
    }
    for_each_vector(0, head_dim, [&](std::int64_t d, auto part) __attribute__((always_inline)) {
      Floats input[Q];
#pragma GCC unroll 3
      for (int q = 0; q < Q; ++q) input[q] = part.load(query[q].query + d);
#pragma GCC unroll 8
      for (int j = 0; j < kPositions; ++j) {
        const Floats weight = part.load(keys[j] + d);
#pragma GCC unroll 3
        for (int q = 0; q < Q; ++q) {
          sums[q][j] = fma(input[q], weight, sums[q][j]);
          hold<Q * kPositions>(sums[q][j]);
        }
      }
    });
#pragma GCC unroll 3
    for (int q = 0; q < Q; ++q) {
      if constexpr (kPositions == 8) {
        _mm256_storeu_ps(scores[q].at + i, sum_each(sums[q]));
      } else {
        _mm_storeu_ps(scores[q].at + i, sum_each_of_four(sums[q]));
      }
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

/// out[q][column, column + V * kWidth) = keep[q] * out + the sum over i of share[q][i] * value(i), in one chain.
/// Not inlined: among other code the compiler keeps the sums in memory.
template <int Q, int V, class Values, class Part>
[[gnu::noinline]] void mix_columns(const Query* query, const ChunkScores* share, const float* keep, const Values& value,
                                   std::int64_t begin, std::int64_t end, std::int64_t column, Part part,
                                   FetchAhead& ahead) {
  Floats sums[Q][V];
#pragma GCC unroll 3
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[q][v] = zeros();
  }
  for (std::int64_t i = begin; i < end; ++i) {
    if (i % 4 == 0) ahead.advance(value, 4);
    const auto* from = value(i) + column;
    Floats weight[Q];
#pragma GCC unroll 3
    for (int q = 0; q < Q; ++q) weight[q] = broadcast(share[q].at[i]);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Floats x = part.load(from + v * kWidth);
#pragma GCC unroll 3
      for (int q = 0; q < Q; ++q) {
        sums[q][v] = fma(weight[q], x, sums[q][v]);
        hold<Q * V>(sums[q][v]);
      }
    }
  }
#pragma GCC unroll 3
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* to = query[q].out + column + v * kWidth;
      part.store(to, fma(broadcast(keep[q]), part.load(to), sums[q][v]));
    }
  }
}

/// Most vectors of columns that are mixed at once for Q queries; what is left over goes by halves of that.
template <int Q>
inline constexpr int kMixedColumns = Q == 1 ? 8 : 4;

/// How often mix_columns goes over the positions of a chunk.
inline std::int64_t sweeps(std::int64_t value_dim, int most_columns) {
  const std::int64_t vectors = value_dim / kWidth;
  const auto left = static_cast<std::uint64_t>(vectors % most_columns);
  return vectors / most_columns + std::popcount(left) + (value_dim % kWidth != 0 ? 1 : 0);
}

/// Mixes columns [d, value_dim).
template <int Q, int V, class Values>
void mix(const Query* query, const ChunkScores* share, const float* keep, const Values& value, std::int64_t begin,
         std::int64_t end, std::int64_t d, std::int64_t value_dim, FetchAhead& ahead) {
  for (; d + V * kWidth <= value_dim; d += V * kWidth) {
    mix_columns<Q, V>(query, share, keep, value, begin, end, d, WholeVector{}, ahead);
  }
  if constexpr (V > 1) {
    mix<Q, V / 2>(query, share, keep, value, begin, end, d, value_dim, ahead);
  } else if (d < value_dim) {
    mix_columns<Q, 1>(query, share, keep, value, begin, end, d, PartVector{value_dim - d}, ahead);
  }
}

template <int Q, class Cached>
void attend_chunk(Query* query, const Cached& key, const Cached& value, std::int64_t begin, std::int64_t end,
                  const AttentionRule& rule, FetchAhead& keys_ahead, FetchAhead& values_ahead) {
  ChunkScores scores[Q];
  score_chunk<Q>(query, key, begin, end, rule.head_dim, scores, keys_ahead);
  float keep[Q];
  for (int q = 0; q < Q; ++q) {
    if constexpr (Cached::kScaled) key.scale(scores[q].at, begin, end);
    keep[q] = share_chunk(begin, end, rule.scale, query[q], scores[q]);
    if constexpr (Cached::kScaled) value.scale(scores[q].at, begin, end);
  }
  mix<Q, kMixedColumns<Q>>(query, scores, keep, value, begin, end, 0, rule.value_dim, values_ahead);
}

/// What attend_together calls for a number of queries.
template <class Cached>
struct AttendChunk {
  void (*attend)(Query*, const Cached&, const Cached&, std::int64_t, std::int64_t, const AttentionRule&, FetchAhead&,
                 FetchAhead&);
  int mixed_columns;
};
template <class Cached>
inline constexpr AttendChunk<Cached> kAttendChunk[kSharing + 1] = {{nullptr, 1},
                                                                   {attend_chunk<1, Cached>, kMixedColumns<1>},
                                                                   {attend_chunk<2, Cached>, kMixedColumns<2>},
                                                                   {attend_chunk<3, Cached>, kMixedColumns<3>}};

/// Attends with `count` queries that see the same positions [begin, end) of a chunk.
template <class Cached>
void attend_together(Query* query, std::int64_t count, const Cached& key, const Cached& value, std::int64_t begin,
                     std::int64_t end, const AttentionRule& rule) {
  // Turns are as even as can be: the first ones take one query more than the others.
  const std::int64_t turns = (count + kSharing - 1) / kSharing;
  const std::int64_t more = count % turns;
  const auto queries_of = [&](std::int64_t turn) { return count / turns + (turn < more ? 1 : 0); };
  const auto sweeps_of = [&](std::int64_t turn) {
    return sweeps(rule.value_dim, kAttendChunk<Cached>[queries_of(turn)].mixed_columns);
  };
  FetchAhead keys_ahead(turns);
  FetchAhead values_ahead(more * sweeps_of(0) + (turns - more) * sweeps_of(turns - 1));
  for (std::int64_t turn = 0; turn < turns; ++turn) {
    const std::int64_t queries = queries_of(turn);
    kAttendChunk<Cached>[queries].attend(query, key, value, begin, end, rule, keys_ahead, values_ahead);
    query += queries;
  }
}

}  // namespace specmoe::kernels::SPECMOE_SIMD
