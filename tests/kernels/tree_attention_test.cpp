#include "kernels/tree_attention.h"

#include "kernels/element.h"
#include "tests/support/kernel_data.h"

namespace specmoe::kernels {
namespace {

struct Case {
  std::int64_t head_dim, group, committed;
  std::int64_t window = 0, chunk = 0;
  std::int64_t value_dim = 0;  // 0: as head_dim
  bool sinks = false;

  std::int64_t values() const { return value_dim == 0 ? head_dim : value_dim; }
};

/// Near the largest scores of some rows, far from those of others.
const std::vector<float> kSinks = {1.5f, -2.0f, 3.0f, 0.0f, 8.0f, -8.0f, 1.0f, 2.0f};

/// Ancestor bits of a tree: row j's parent is parent[j] (-1: the last committed token).
struct Tree {
  explicit Tree(std::vector<int> parents) : parent(std::move(parents)) {
    words = (staged() + 63) / 64;
    ancestors.assign(static_cast<std::size_t>(staged() * words), 0);
    for (std::int64_t j = 0; j < staged(); ++j) {
      if (parent[j] >= 0) {
        std::copy_n(ancestors.begin() + parent[j] * words, words, ancestors.begin() + j * words);
        depth.push_back(depth[parent[j]] + 1);
      } else {
        depth.push_back(1);
      }
      ancestors[j * words + j / 64] |= std::uint64_t{1} << (j % 64);
    }
  }

  std::int64_t staged() const { return static_cast<std::int64_t>(parent.size()); }
  bool is_ancestor(std::int64_t row, std::int64_t other) const {
    return (ancestors[row * words + other / 64] >> (other % 64) & 1) != 0;
  }

  std::vector<int> parent;
  std::vector<std::uint64_t> ancestors;
  std::vector<std::int32_t> depth;
  std::int64_t words = 0;
};

Tree chain(int length) {
  std::vector<int> parent;
  for (int j = 0; j < length; ++j) parent.push_back(j - 1);
  return Tree(parent);
}

Tree bushy(int rows) {
  std::vector<int> parent = {-1};
  for (int j = 1; j < rows; ++j) parent.push_back((j - 1) / 3);
  return Tree(parent);
}

/// Rows of floats [rows, width + padding] as a cache of some type holds them.
struct CachedFloats {
  CachedFloats(const float* from, std::int64_t rows, std::int64_t width, std::int64_t padding, DType type)
      : dtype(type),
        bytes(static_cast<std::size_t>(rows * (width + padding)) * dtype_bytes(type)),
        scales(static_cast<std::size_t>(rows), NAN) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t at = i * (width + padding);
      store_cached_row(from + at, width, type, bytes.data() + static_cast<std::size_t>(at) * dtype_bytes(type),
                       &scales[static_cast<std::size_t>(i)]);
    }
  }
  /// What the rows say now.
  std::vector<float> floats(std::int64_t stride) const {
    std::vector<float> all(bytes.size() / dtype_bytes(dtype));
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::byte* at = bytes.data() + i * dtype_bytes(dtype);
      const float scale = scales[i / static_cast<std::size_t>(stride)];
      if (dtype == DType::kFloat32) all[i] = *reinterpret_cast<const float*>(at);
      if (dtype == DType::kBFloat16) all[i] = bfloat16_to_float(*reinterpret_cast<const std::uint16_t*>(at));
      if (dtype == DType::kInt8) all[i] = static_cast<float>(*reinterpret_cast<const std::int8_t*>(at)) * scale;
    }
    return all;
  }

  DType dtype;
  std::vector<std::byte> bytes;
  std::vector<float> scales;
};

constexpr DType kCacheTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kInt8};

class TreeAttentionTest : public BackendTest {
 protected:
  void expect_reference(const Case& c, const Tree& tree, DType dtype);
  void expect_same_bits_however_committed(DType dtype);
  std::vector<float> run(const Case& c, const Tree& tree, const std::vector<float>& query, const float* keys,
                         const float* values, std::int64_t padding, std::int64_t first, std::int64_t rows,
                         DType dtype = DType::kFloat32) {
    const std::int64_t width = c.group * c.head_dim;
    const std::int64_t out_width = c.group * c.values();
    std::vector<float> out(static_cast<std::size_t>(rows * out_width), NAN);
    std::vector<float> scratch(
        static_cast<std::size_t>(attention_scratch_floats(c.committed + tree.staged(), c.head_dim)), NAN);
    const CachedFloats key_rows(keys, c.committed + tree.staged(), c.head_dim, padding, dtype);
    const CachedFloats value_rows(values, c.committed + tree.staged(), c.values(), padding, dtype);
    const AttentionHead head = {
        key_rows.bytes.data(),  value_rows.bytes.data(), c.head_dim + padding, c.values() + padding, c.committed, dtype,
        key_rows.scales.data(), value_rows.scales.data()};
    const AttentionRule rule = {c.head_dim, c.values(), 0.3f, c.window, c.chunk, c.sinks ? kSinks.data() : nullptr};
    tree_attention.on(GetParam())(contiguous(query.data() + first * width, rows, width), head,
                                  tree.ancestors.data() + first * tree.words, tree.words, rule,
                                  view(out, rows, out_width), scratch.data());
    return out;
  }
};

/// Dense softmax in double over the keys a row may see.
std::vector<double> reference(const Case& c, const Tree& tree, const float* query, std::int64_t row, std::int64_t group,
                              const float* keys, const float* values, std::int64_t padding) {
  const std::int64_t position = c.committed - 1 + tree.depth[row];
  std::vector<double> out(static_cast<std::size_t>(c.values()), 0.0);
  double total = c.sinks ? std::exp(double{kSinks[group]}) : 0.0;
  for (std::int64_t i = 0; i < c.committed + tree.staged(); ++i) {
    if (i >= c.committed && !tree.is_ancestor(row, i - c.committed)) continue;
    const std::int64_t at = i < c.committed ? i : c.committed - 1 + tree.depth[i - c.committed];
    if (c.window > 0 && at <= position - c.window) continue;
    if (c.chunk > 0 && at / c.chunk != position / c.chunk) continue;
    double score = 0;
    for (std::int64_t d = 0; d < c.head_dim; ++d) score += double{query[d]} * keys[i * (c.head_dim + padding) + d];
    const double share = std::exp(0.3 * score);
    total += share;
    for (std::int64_t d = 0; d < c.values(); ++d) out[d] += share * values[i * (c.values() + padding) + d];
  }
  for (double& x : out) x /= total;
  return out;
}

/// The reference sees what the cache holds, so rounding to its type is no excuse.
void TreeAttentionTest::expect_reference(const Case& c, const Tree& tree, DType dtype) {
  constexpr std::int64_t kPadding = 3;
  const std::int64_t positions = c.committed + tree.staged();
  const std::vector<float> keys = random_floats(positions * (c.head_dim + kPadding), 1, 2.0f);
  const std::vector<float> values = random_floats(positions * (c.values() + kPadding), 2);
  const std::vector<float> query = random_floats(tree.staged() * c.group * c.head_dim, 3, 2.0f);
  const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), kPadding, 0, tree.staged(), dtype);
  const auto held = [&](const std::vector<float>& rows, std::int64_t width) {
    return CachedFloats(rows.data(), positions, width, kPadding, dtype).floats(width + kPadding);
  };
  const std::vector<float> held_keys = held(keys, c.head_dim);
  const std::vector<float> held_values = held(values, c.values());
  for (std::int64_t t = 0; t < tree.staged(); ++t) {
    for (std::int64_t g = 0; g < c.group; ++g) {
      const std::int64_t at = (t * c.group + g) * c.head_dim;
      const std::vector<double> expected =
          reference(c, tree, query.data() + at, t, g, held_keys.data(), held_values.data(), kPadding);
      for (std::int64_t d = 0; d < c.values(); ++d) {
        expect_close(out[(t * c.group + g) * c.values() + d], expected[d], kSums,
                     concat(dtype_name(dtype), " committed ", c.committed, " window ", c.window, " chunk ", c.chunk,
                            " row ", t, " head ", g, " at ", d));
      }
    }
  }
}

TEST_P(TreeAttentionTest, MatchesDoubleReference) {
  const Case cases[] = {{32, 1, 0},
                        {32, 1, 5},
                        {64, 2, 63},
                        {64, 4, 64},
                        {40, 2, 65},
                        {16, 8, 200},
                        {128, 1, 130},
                        {7, 3, 70},
                        {32, 2, 150, 40},
                        {32, 2, 150, 1},
                        {64, 1, 3, 500},
                        {16, 1, 400, 130},
                        {32, 2, 150, 0, 64},
                        {32, 2, 150, 0, 13},
                        {64, 1, 3, 0, 500},
                        {16, 2, 0, 0, 1},
                        {16, 1, 400, 0, 96},
                        {24, 2, 90, 0, 0, 40},
                        {40, 1, 66, 0, 0, 7},
                        {16, 8, 70, 0, 0, 0, true},
                        {32, 2, 150, 5, 0, 0, true}};
  for (const Case& c : cases) {
    for (const Tree& tree : {chain(1), chain(9), bushy(33), chain(70)}) {
      for (const DType dtype : kCacheTypes) expect_reference(c, tree, dtype);
    }
  }
}

TEST_P(TreeAttentionTest, RowsDoNotDependOnTheirNumber) {
  for (const Case& c : {Case{32, 2, 100}, Case{64, 1, 60}, Case{40, 1, 130, 50}, Case{32, 2, 300, 150},
                        Case{40, 1, 130, 0, 17}, Case{24, 2, 90, 0, 80, 40}, Case{32, 2, 100, 0, 0, 0, true}}) {
    const Tree tree = bushy(33);
    const std::int64_t positions = c.committed + tree.staged();
    const std::int64_t out_width = c.group * c.values();
    const std::vector<float> keys = random_floats(positions * c.head_dim, 1, 2.0f);
    const std::vector<float> values = random_floats(positions * c.values(), 2);
    const std::vector<float> query = random_floats(tree.staged() * c.group * c.head_dim, 3, 2.0f);
    for (const DType dtype : kCacheTypes) {
      std::vector<float> alone;
      for (std::int64_t t = 0; t < tree.staged(); ++t) {
        const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), 0, t, 1, dtype);
        alone.insert(alone.end(), out.begin(), out.end());
      }
      for (const std::int64_t rows : kRowCounts) {
        const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), 0, 0, rows, dtype);
        EXPECT_EQ(out, std::vector<float>(alone.begin(), alone.begin() + rows * out_width))
            << dtype_name(dtype) << " " << rows;
      }
    }
  }
}

// The row of a path's last node, computed with 0, 1, ... of the path's nodes committed and the rest staged among
// siblings that are not its ancestors: always the same bits.
void TreeAttentionTest::expect_same_bits_however_committed(DType dtype) {
  constexpr std::int64_t kPath = 9;
  constexpr std::int64_t kDim = 48;
  for (const std::int64_t committed : {0, 1, 55, 60, 64, 125}) {
    for (const auto& [window, chunk] : {std::pair{0, 0}, std::pair{30, 0}, std::pair{0, 30}}) {
      const std::int64_t positions = committed + kPath;
      const std::vector<float> keys = random_floats(positions * kDim, 1, 2.0f);
      const std::vector<float> values = random_floats(positions * kDim, 2);
      const std::vector<float> query = random_floats(kDim, 3, 2.0f);
      std::vector<float> expected;
      for (std::int64_t kept = kPath - 1; kept >= 0; --kept) {
        // Before every path node that is still staged lies a sibling with other keys.
        std::vector<int> parent;
        std::vector<float> staged_keys(keys.begin(), keys.begin() + (committed + kept) * kDim);
        std::vector<float> staged_values(values.begin(), values.begin() + (committed + kept) * kDim);
        int last = -1;
        for (std::int64_t i = kept; i < kPath; ++i) {
          parent.push_back(last);
          parent.push_back(last);
          last = static_cast<int>(parent.size()) - 1;
          staged_keys.insert(staged_keys.end(), kDim, 9.0f);
          staged_values.insert(staged_values.end(), kDim, 9.0f);
          const std::int64_t at = (committed + i) * kDim;
          staged_keys.insert(staged_keys.end(), keys.begin() + at, keys.begin() + at + kDim);
          staged_values.insert(staged_values.end(), values.begin() + at, values.begin() + at + kDim);
        }
        const Tree tree(parent);
        std::vector<float> queries(static_cast<std::size_t>(tree.staged() * kDim), 0.5f);
        std::copy(query.begin(), query.end(), queries.begin() + last * kDim);
        const std::vector<float> out = run({kDim, 1, committed + kept, window, chunk}, tree, queries,
                                           staged_keys.data(), staged_values.data(), 0, last, 1, dtype);
        if (expected.empty()) expected = out;
        EXPECT_EQ(out, expected) << dtype_name(dtype) << " committed " << committed << " + " << kept << " window "
                                 << window << " chunk " << chunk;
      }
    }
  }
}

TEST_P(TreeAttentionTest, CommittedAndStagedAncestorsGiveTheSameBits) {
  for (const DType dtype : kCacheTypes) expect_same_bits_however_committed(dtype);
}

TEST(CachedRow, RoundsToNearestAndKeepsWhatIsNotANumber) {
  const std::vector<float> row = {-254.0F, 127.0F, 1.0F, 3.0F, 0.0F};
  const CachedFloats narrow(row.data(), 1, 5, 0, DType::kInt8);
  EXPECT_EQ(narrow.scales[0], 2.0F);
  EXPECT_EQ(narrow.floats(5), (std::vector<float>{-254, 128, 0, 4, 0})) << "halves go to the even integer";
  const std::vector<float> zeros(4);
  EXPECT_EQ(CachedFloats(zeros.data(), 1, 4, 0, DType::kInt8).floats(4), zeros);
  for (const float odd : {NAN, INFINITY}) {
    const std::vector<float> broken = {1.0F, odd, 2.0F};
    EXPECT_TRUE(std::isnan(CachedFloats(broken.data(), 1, 3, 0, DType::kInt8).floats(3)[0]));
    EXPECT_FALSE(std::isfinite(CachedFloats(broken.data(), 1, 3, 0, DType::kBFloat16).floats(3)[1]));
  }
}

TEST_P(TreeAttentionTest, LargeScoresDoNotOverflow) {
  const std::vector<float> keys = {60, 60, 59, 60, -90, -90};
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::vector<float> query = {60, 60};
  const std::vector<float> out = run({2, 1, 2}, chain(1), query, keys.data(), values.data(), 0, 0, 1);
  const double share = std::exp(-18.0);
  expect_close(out[0], (1 + 3 * share) / (1 + share), kSums, "first");
  expect_close(out[1], (2 + 4 * share) / (1 + share), kSums, "second");
}

INSTANTIATE_TEST_SUITE_P(Cpu, TreeAttentionTest, testing::ValuesIn(kCpuBackends), backend_test_name);

}  // namespace
}  // namespace specmoe::kernels
