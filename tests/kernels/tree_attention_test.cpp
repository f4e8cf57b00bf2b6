#include "kernels/tree_attention.h"

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

class TreeAttentionTest : public BackendTest {
 protected:
  std::vector<float> run(const Case& c, const Tree& tree, const std::vector<float>& query, const float* keys,
                         const float* values, std::int64_t padding, std::int64_t first, std::int64_t rows) {
    const std::int64_t width = c.group * c.head_dim;
    const std::int64_t out_width = c.group * c.values();
    std::vector<float> out(static_cast<std::size_t>(rows * out_width), NAN);
    std::vector<float> scratch(
        static_cast<std::size_t>(attention_scratch_floats(c.committed + tree.staged(), c.head_dim)), NAN);
    const AttentionHead head = {keys, values, c.head_dim + padding, c.values() + padding, c.committed};
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
      constexpr std::int64_t kPadding = 3;
      const std::int64_t positions = c.committed + tree.staged();
      const std::vector<float> keys = random_floats(positions * (c.head_dim + kPadding), 1, 2.0f);
      const std::vector<float> values = random_floats(positions * (c.values() + kPadding), 2);
      const std::vector<float> query = random_floats(tree.staged() * c.group * c.head_dim, 3, 2.0f);
      const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), kPadding, 0, tree.staged());
      for (std::int64_t t = 0; t < tree.staged(); ++t) {
        for (std::int64_t g = 0; g < c.group; ++g) {
          const std::int64_t at = (t * c.group + g) * c.head_dim;
          const std::vector<double> expected =
              reference(c, tree, query.data() + at, t, g, keys.data(), values.data(), kPadding);
          for (std::int64_t d = 0; d < c.values(); ++d) {
            expect_close(out[(t * c.group + g) * c.values() + d], expected[d], kSums,
                         concat("committed ", c.committed, " window ", c.window, " chunk ", c.chunk, " row ", t,
                                " head ", g, " at ", d));
          }
        }
      }
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
    std::vector<float> alone;
    for (std::int64_t t = 0; t < tree.staged(); ++t) {
      const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), 0, t, 1);
      alone.insert(alone.end(), out.begin(), out.end());
    }
    for (const std::int64_t rows : kRowCounts) {
      const std::vector<float> out = run(c, tree, query, keys.data(), values.data(), 0, 0, rows);
      EXPECT_EQ(out, std::vector<float>(alone.begin(), alone.begin() + rows * out_width)) << rows;
    }
  }
}

// The row of a path's last node, computed with 0, 1, ... of the path's nodes committed and the rest staged among
// siblings that are not its ancestors: always the same bits.
TEST_P(TreeAttentionTest, CommittedAndStagedAncestorsGiveTheSameBits) {
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
                                           staged_keys.data(), staged_values.data(), 0, last, 1);
        if (expected.empty()) expected = out;
        EXPECT_EQ(out, expected) << "committed " << committed << " + " << kept << " window " << window << " chunk "
                                 << chunk;
      }
    }
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
