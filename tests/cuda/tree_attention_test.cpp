#include "kernels/tree_attention.h"

#include "tests/cuda/device_test.h"

namespace specmoe::kernels::cuda {
namespace {

/// Staged rows of one sequence: row j's parent is parents[j] (-1: the last committed token).
struct Tree {
  explicit Tree(std::vector<int> parent) : parents(std::move(parent)) {
    words = (size() + 63) / 64;
    ancestors.assign(static_cast<std::size_t>(size() * words), 0);
    for (std::int64_t j = 0; j < size(); ++j) {
      depth.push_back(parents[j] < 0 ? 1 : depth[parents[j]] + 1);
      if (parents[j] >= 0) {
        std::copy_n(ancestors.begin() + parents[j] * words, words, ancestors.begin() + j * words);
      }
      ancestors[j * words + j / 64] |= std::uint64_t{1} << (j % 64);
    }
  }
  std::int64_t size() const { return static_cast<std::int64_t>(parents.size()); }

  std::vector<int> parents;
  std::vector<std::uint64_t> ancestors;
  std::vector<std::int32_t> depth;
  std::int64_t words = 0;
};

Tree chain(int length) {
  std::vector<int> parents;
  for (int j = 0; j < length; ++j) parents.push_back(j - 1);
  return Tree(parents);
}

/// Two trees side by side, so that even the first staged position differs between rows.
Tree bushy(int rows) {
  std::vector<int> parents = {-1, -1};
  for (int j = 2; j < rows; ++j) parents.push_back((j - 1) / 3);
  return Tree(parents);
}

/// A sequence's text: keys [kv heads, committed + staged, head_dim] behind `first` floats per position, values the same
/// behind values().
struct Text {
  std::int64_t committed;
  Tree tree;
  std::vector<float> keys, values;
  std::int64_t positions() const { return committed + tree.size(); }
};

class DeviceAttentionTest : public DeviceTest {
 protected:
  static Text text(std::int64_t committed, Tree tree, const AttentionShape& shape, std::uint32_t seed) {
    const std::int64_t positions = committed + tree.size();
    const std::int64_t keys = (shape.first + shape.kv_heads * shape.head_dim) * positions;
    const std::int64_t values = (shape.values() + shape.kv_heads * shape.value_size()) * positions;
    Text text = {committed, std::move(tree), random_floats(keys, seed, 2.0f), random_floats(values, seed + 1)};
    if (shape.cached == DType::kBFloat16) {
      text.keys = rounded_to_bfloat16(text.keys);
      text.values = rounded_to_bfloat16(text.values);
    }
    return text;
  }

  /// Attention of rows [first, first + rows) of every text's tree; queries [all trees' rows, heads * head_dim].
  std::vector<float> run(AttentionShape shape, const std::vector<Text>& texts, const std::vector<float>& queries,
                         std::int64_t first, std::int64_t rows, int extra_chunks = 0) {
    const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    const std::int64_t query_width = shape.heads * shape.head_dim;
    const DeviceArray<float> sinks = upload(kSinks);
    if (shape.sinks != nullptr) shape.sinks = sinks.data();
    std::vector<DeviceArray<std::byte>> memory;
    std::vector<DeviceArray<std::uint64_t>> masks;
    std::vector<DeviceSequence> sequences;
    std::vector<DeviceRow> row_info;
    std::vector<AttentionTile> tiles;
    std::vector<float> qkv;
    std::int64_t longest = 0, before = 0;
    const int tile_rows = attention_tile_rows(shape.heads / shape.kv_heads);
    for (std::size_t s = 0; s < texts.size(); ++s) {
      const Text& text = texts[s];
      memory.push_back(upload_cached(text.keys, shape.cached));
      memory.push_back(upload_cached(text.values, shape.cached));
      masks.push_back(upload(text.tree.ancestors));
      sequences.push_back({memory[2 * s].data(), memory[2 * s + 1].data(), static_cast<std::int32_t>(text.positions()),
                           static_cast<std::int32_t>(text.committed), static_cast<std::int32_t>(text.tree.words),
                           masks[s].data() + first * text.tree.words});
      const std::int64_t end = std::min(first + rows, text.tree.size());
      for (std::int64_t j = first; j < end; j += tile_rows) {
        tiles.push_back({static_cast<std::int32_t>(row_info.size()),
                         static_cast<std::int32_t>(std::min<std::int64_t>(tile_rows, end - j))});
        for (std::int64_t i = j; i < std::min<std::int64_t>(j + tile_rows, end); ++i) {
          row_info.push_back({static_cast<std::int32_t>(s), 0, 0, static_cast<std::int32_t>(i - first)});
          qkv.insert(qkv.end(), queries.begin() + (before + i) * query_width,
                     queries.begin() + (before + i + 1) * query_width);
          qkv.insert(qkv.end(), width - query_width, NAN);
          longest = std::max<std::int64_t>(longest, text.committed + text.tree.depth[i]);
        }
      }
      before += text.tree.size();
    }
    tiles.push_back({0, 0});
    const auto count = static_cast<std::int64_t>(row_info.size());
    const int chunks = static_cast<int>((longest + kAttentionChunk - 1) / kAttentionChunk) + extra_chunks;
    const DeviceRows in = upload_rows(qkv, count, width);
    const DeviceRows out(count, shape.heads * shape.value_size());
    const auto device_tiles = upload(tiles);
    const auto device_rows = upload(row_info);
    const auto device_sequences = upload(sequences);
    const DeviceArray<float> scratch(attention_scratch(static_cast<int>(count), shape, chunks));
    const DeviceArray<unsigned> counters(tiles.size() * shape.kv_heads);
    stream_->zero(counters.data(), counters.size() * sizeof(unsigned));
    tree_attention(in.view(), device_tiles.data(), static_cast<int>(tiles.size()), device_rows.data(),
                   device_sequences.data(), shape, chunks, scratch.data(), counters.data(), out.view(), *stream_);
    EXPECT_EQ(download(counters.data(), counters.size()), std::vector<unsigned>(counters.size(), 0));
    return download_rows(out.view());
  }

  /// Dense softmax in double over the keys that a row may see.
  static std::vector<double> reference(const AttentionShape& shape, const Text& text, const float* query,
                                       std::int64_t row, std::int64_t head) {
    const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
    const std::int64_t base = (shape.first + kv_head * shape.head_dim) * text.positions();
    const std::int64_t value_base = (shape.values() + kv_head * shape.value_size()) * text.positions();
    const std::int64_t position = text.committed - 1 + text.tree.depth[row];
    std::vector<double> out(static_cast<std::size_t>(shape.value_size()), 0.0);
    double total = shape.sinks != nullptr ? std::exp(double{kSinks[head]}) : 0.0;
    for (std::int64_t i = 0; i < text.positions(); ++i) {
      const std::int64_t j = i - text.committed;
      if (j >= 0 && (text.tree.ancestors[row * text.tree.words + j / 64] >> (j % 64) & 1) == 0) continue;
      const std::int64_t at = j < 0 ? i : text.committed - 1 + text.tree.depth[j];
      if (shape.window > 0 && at <= position - shape.window) continue;
      if (shape.chunk > 0 && at < position / shape.chunk * shape.chunk) continue;
      double score = 0;
      for (std::int64_t d = 0; d < shape.head_dim; ++d) {
        score += double{query[d]} * text.keys[base + i * shape.head_dim + d];
      }
      const double share = std::exp(shape.scale * score);
      total += share;
      for (std::int64_t d = 0; d < shape.value_size(); ++d) {
        out[d] += share * text.values[value_base + i * shape.value_size() + d];
      }
    }
    for (double& x : out) x *= shape.out_scale / total;
    return out;
  }

  void compare(const AttentionShape& shape, std::int64_t committed) {
    const std::vector<Text> texts = {text(committed, bushy(13), shape, 1), text(committed / 2, chain(70), shape, 7),
                                     text(committed, chain(1), shape, 9)};
    const std::int64_t width = shape.heads * shape.head_dim, out_width = shape.heads * shape.value_size();
    const std::vector<float> queries = random_floats(84 * width, 3, 2.0f);
    const std::vector<float> out = run(shape, texts, queries, 0, 70, 1);
    std::int64_t t = 0;
    for (const Text& text : texts) {
      for (std::int64_t row = 0; row < text.tree.size(); ++row, ++t) {
        for (std::int64_t head = 0; head < shape.heads; ++head) {
          const float* query = queries.data() + t * width + head * shape.head_dim;
          const std::vector<double> expected = reference(shape, text, query, row, head);
          for (std::int64_t d = 0; d < shape.value_size(); ++d) {
            expect_close(
                out[t * out_width + head * shape.value_size() + d], expected[d], kSums,
                concat("head_dim ", shape.head_dim, " committed ", committed, " row ", t, " head ", head, " at ", d));
          }
        }
      }
    }
  }

  void expect_rows_alone(const AttentionShape& shape, std::int64_t committed) {
    const std::vector<Text> texts = {text(committed, bushy(33), shape, 1)};
    const std::int64_t width = shape.heads * shape.head_dim, out_width = shape.heads * shape.value_size();
    const std::vector<float> queries = random_floats(33 * width, 3, 2.0f);
    std::vector<float> alone;
    for (std::int64_t t = 0; t < 33; ++t) {
      const std::vector<float> out = run(shape, texts, queries, t, 1);
      alone.insert(alone.end(), out.begin(), out.end());
    }
    for (const std::int64_t rows : kRowCounts) {
      EXPECT_EQ(run(shape, texts, queries, 0, rows),
                std::vector<float>(alone.begin(), alone.begin() + rows * out_width));
    }
  }

  /// Every part that a plain shape does not have.
  static AttentionShape general(std::int32_t heads, std::int32_t kv_heads, std::int32_t head_dim,
                                std::int32_t value_dim) {
    AttentionShape shape = {12, heads, kv_heads, head_dim, 0, 0.3f};
    shape.value_dim = value_dim;
    shape.first_value = 20;
    shape.chunk = 48;
    shape.out_scale = 0.5f;
    shape.sinks = kSinks.data();
    return shape;
  }
  static inline const std::vector<float> kSinks = {1.5f, -0.5f, 3.0f, 0.0f};
};

TEST_P(DeviceAttentionTest, MatchesDoubleReference) {
  struct Case {
    std::int32_t heads, kv_heads, head_dim, window;
    std::int64_t committed;
  };
  for (const Case& c : {Case{1, 1, 32, 0, 0}, Case{4, 2, 20, 0, 63}, Case{3, 1, 64, 0, 130}, Case{1, 1, 40, 40, 150},
                        Case{1, 1, 16, 1, 40}, Case{1, 1, 128, 0, 257}}) {
    compare({12, c.heads, c.kv_heads, c.head_dim, c.window, 0.3f}, c.committed);
  }
}

TEST_P(DeviceAttentionTest, WhatFewLayersHaveMatchesToo) {
  AttentionShape odd = {12, 4, 2, 18, 40, 0.3f};  // rows of keys and values that are not whole 16 bytes
  compare(odd, 63);
  odd.sinks = kSinks.data();
  odd.window = 0;
  compare(odd, 130);
  compare(general(2, 2, 20, 10), 63);
  compare(general(3, 1, 40, 72), 130);
}

// The bits of the same keys and values in float32, whose sums the tests above hold to the reference.
TEST_P(DeviceAttentionTest, CachesInBfloat16GiveTheBitsOfTheirFloats) {
  AttentionShape odd = {12, 4, 2, 18, 40, 0.3f};
  odd.sinks = kSinks.data();
  for (AttentionShape shape : {AttentionShape{12, 4, 2, 20, 0, 0.3f}, AttentionShape{0, 1, 1, 128, 100, 0.3f}, odd,
                               general(3, 1, 40, 72), general(2, 2, 20, 10)}) {
    shape.cached = DType::kBFloat16;
    const std::vector<Text> texts = {text(130, bushy(13), shape, 1), text(40, chain(3), shape, 7)};
    const std::vector<float> queries = random_floats(16 * shape.heads * shape.head_dim, 3, 2.0f);
    const std::vector<float> got = run(shape, texts, queries, 0, 13);
    shape.cached = DType::kFloat32;
    EXPECT_EQ(got, run(shape, texts, queries, 0, 13)) << "head_dim " << shape.head_dim;
  }
}

TEST_P(DeviceAttentionTest, RowsDoNotDependOnTheirNumber) {
  expect_rows_alone({0, 2, 1, 32, 0, 0.3f}, 100);
  expect_rows_alone({0, 2, 1, 32, 50, 0.3f}, 130);
  expect_rows_alone(general(2, 1, 18, 12), 130);
}

// The row of a path's last node, computed with 0, 1, ... of the path's nodes committed and the rest staged among
// siblings that are not its ancestors: always the same bits.
TEST_P(DeviceAttentionTest, CommittedAndStagedAncestorsGiveTheSameBits) {
  constexpr std::int64_t kPath = 6;
  for (const auto& [committed, is_general] :
       {std::pair<std::int64_t, bool>{0, false}, {29, false}, {124, false}, {124, true}}) {
    AttentionShape shape = {0, 2, 1, 20, committed == 29 ? 12 : 0, 0.3f};
    if (is_general) {
      shape.sinks = kSinks.data();
      shape.chunk = 64;
    }
    const std::int64_t dim = shape.head_dim;
    const std::vector<float> keys = random_floats((committed + kPath) * dim, 1, 2.0f);
    const std::vector<float> values = random_floats((committed + kPath) * dim, 2);
    const std::vector<float> query = random_floats(2 * dim, 3, 2.0f);
    std::vector<float> expected;
    for (std::int64_t kept = kPath - 1; kept >= 0; --kept) {
      // Before every path node that is still staged lies a sibling with other keys.
      std::vector<int> parents;
      const auto prefix = (committed + kept) * dim;
      std::vector<float> staged_keys(keys.begin(), keys.begin() + prefix);
      std::vector<float> staged_values(values.begin(), values.begin() + prefix);
      int last = -1;
      for (std::int64_t i = kept; i < kPath; ++i) {
        parents.insert(parents.end(), 2, last);
        last = static_cast<int>(parents.size()) - 1;
        const std::int64_t at = (committed + i) * dim;
        staged_keys.insert(staged_keys.end(), dim, 9.0f);
        staged_values.insert(staged_values.end(), dim, 9.0f);
        staged_keys.insert(staged_keys.end(), keys.begin() + at, keys.begin() + at + dim);
        staged_values.insert(staged_values.end(), values.begin() + at, values.begin() + at + dim);
      }
      const std::vector<Text> texts = {{committed + kept, Tree(parents), staged_keys, staged_values}};
      std::vector<float> queries(static_cast<std::size_t>((last + 1) * 2 * dim), 0.5f);
      std::copy(query.begin(), query.end(), queries.begin() + last * 2 * dim);
      const std::vector<float> out = run(shape, texts, queries, last, 1);
      if (expected.empty()) expected = out;
      EXPECT_EQ(out, expected) << "committed " << committed << " + " << kept;
    }
  }
}

SPECMOE_DEVICE_TESTS(DeviceAttentionTest);

}  // namespace
}  // namespace specmoe::kernels::cuda
