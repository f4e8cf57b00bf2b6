// Row t of a pass has the same bits whatever else is in the pass: on every back end, with weights and caches of every
// type.
#include <algorithm>

#include "core/nn/kv_storage.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

struct Case {
  std::string fixture;
  kernels::Backend backend;
  kernels::DType dtype;
  kernels::DType kv_dtype = kernels::DType::kFloat32;

  std::string name() const {
    const std::string cache = kv_dtype == kernels::DType::kFloat32 ? "" : concat("_kv_", kernels::dtype_name(kv_dtype));
    return concat(fixture, "_", kernels::backend_name(backend), "_", kernels::dtype_name(dtype), cache);
  }
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name(); }
};

/// One checkpoint of each kind of block; all of them on the back end in use, a few on the others in both dtypes. Narrow
/// caches with every kind of attention.
std::vector<Case> cases() {
  using kernels::Backend;
  const std::vector<std::string> everywhere = {"mixtral_a", "mixtral_b", "llama_bias"};
  const std::vector<std::string> others = {"mistral_a",         "qwen2_a",
                                           "qwen3_b",           "gemma3_text_a",
                                           "qwen2_moe_a",       "qwen3_moe_b",
                                           "olmoe_a",           "phimoe_a",
                                           "gpt_oss_a",         "granitemoe_a",
                                           "deepseek_v2_b",     "deepseek_v3_b",
                                           "llama4_text_scout", "llama4_text_maverick",
                                           "glm4_moe_b",        "dots1_a",
                                           "minimax_m2_b",      "solar_open_b",
                                           "ernie4_5_moe_a",    "exaone_moe_a",
                                           "hunyuan_v1_moe_a"};
  const std::vector<std::string> few_attentions = {"mixtral_b", "deepseek_v2_b"};
  const std::vector<std::string> every_attention = {"mixtral_a", "mistral_a",     "gemma3_text_a", "qwen3_b",
                                                    "gpt_oss_a", "deepseek_v2_b", "deepseek_v3_b", "llama4_text_scout"};
  std::vector<Case> all;
  for (const Backend backend :
       {Backend::kScalar, Backend::kAvx2, Backend::kAvx512, Backend::kAvx512Bf16, Backend::kAmx}) {
    if (!kernels::backend_available(backend)) continue;
    for (const std::string& fixture : everywhere) {
      all.push_back({fixture, backend, kernels::DType::kFloat32});
      all.push_back({fixture, backend, kernels::DType::kBFloat16});
      all.push_back({fixture, backend, kernels::DType::kInt8});
    }
    for (const std::string& fixture : others) {
      all.push_back({fixture, backend, kernels::DType::kFloat32});
      if (backend == kernels::default_cpu_backend()) all.push_back({fixture, backend, kernels::DType::kBFloat16});
    }
    for (const kernels::DType kv : {kernels::DType::kBFloat16, kernels::DType::kInt8}) {
      for (const std::string& fixture : backend == kernels::default_cpu_backend() ? every_attention : few_attentions) {
        all.push_back({fixture, backend, kernels::DType::kBFloat16, kv});
      }
    }
  }
  return all;
}

constexpr int kContext = 20;  // more than the windows and chunks of all of them

class Invariance : public ::testing::TestWithParam<Case> {
 protected:
  Invariance() : fixture_(load_fixture(GetParam().fixture)), model_(open(1)) {
    while (text_.size() < 128) text_.insert(text_.end(), fixture_.ids.begin(), fixture_.ids.end());
  }

  std::shared_ptr<LanguageModel> open(int threads) const {
    LoadOptions options;
    options.backend = GetParam().backend;
    options.dtype = GetParam().dtype;
    options.kv_dtype = GetParam().kv_dtype;
    options.threads = threads;
    return load_model(fixture_.folder, options);
  }
  /// A cache that holds the first `length` tokens of the text, computed one by one.
  std::unique_ptr<KVCache> cache_of(LanguageModel& model, int length) const {
    auto cache = model.new_cache(160);
    for (int i = 0; i < length; ++i) append(model, *cache, std::span(text_).subspan(static_cast<std::size_t>(i), 1));
    return cache;
  }
  /// Logits of text rows [kContext, kContext + count), one row a pass.
  std::vector<float> one_by_one(int count) const {
    const auto cache = cache_of(*model_, kContext);
    std::vector<float> logits;
    for (int i = 0; i < count; ++i) {
      const auto row = std::span(text_).subspan(static_cast<std::size_t>(kContext + i), 1);
      const ForwardResult result = append(*model_, *cache, row);
      logits.insert(logits.end(), result.logits.begin(), result.logits.end());
    }
    return logits;
  }

  Fixture fixture_;
  std::shared_ptr<LanguageModel> model_;
  std::vector<TokenId> text_;
};

TEST_P(Invariance, RowsInOnePass) {
  const std::vector<float> expected = one_by_one(33);
  for (const std::size_t rows : {1, 2, 7, 16, 33}) {
    const auto cache = cache_of(*model_, kContext);
    const ForwardResult result = append(*model_, *cache, std::span(text_).subspan(kContext, rows));
    const auto first = std::span(expected).first(rows * static_cast<std::size_t>(fixture_.vocab));
    EXPECT_TRUE(same_bits(result.logits, first)) << rows << " rows";
  }
}

TEST_P(Invariance, PrefillInChunks) {
  const auto whole = model_->new_cache(64);
  const ForwardResult expected = append(*model_, *whole, std::span(text_).first(41));
  const auto chunked = model_->new_cache(64);
  std::vector<float> logits;
  for (const std::size_t count : {3, 16, 1, 21}) {
    const auto rows = std::span(text_).subspan(static_cast<std::size_t>(chunked->committed()), count);
    const ForwardResult result = append(*model_, *chunked, rows);
    logits.insert(logits.end(), result.logits.begin(), result.logits.end());
  }
  EXPECT_TRUE(same_bits(logits, expected.logits));
}

struct TreeRows {
  std::vector<TokenId> tokens;
  std::vector<std::int32_t> parents;
  std::vector<std::int32_t> path_to(std::int32_t row) const {
    std::vector<std::int32_t> path;
    for (; row >= 0; row = parents[static_cast<std::size_t>(row)]) path.insert(path.begin(), row);
    return path;
  }
};

/// Several roots, branches, a long chain, more than 64 rows so that masks take two words.
TreeRows wide_tree(int vocab, int rows) {
  TreeRows tree;
  for (int i = 0; i < rows; ++i) {
    tree.tokens.push_back((i * 37 + 5) % vocab);
    tree.parents.push_back(i % 5 == 0 ? std::max(-1, i - 12) : i - 1 - (i * 3) % std::min(i, 4));
  }
  return tree;
}

TEST_P(Invariance, TreeEqualsItsPaths) {
  const TreeRows tree = wide_tree(fixture_.vocab, 70);
  const auto vocab = static_cast<std::size_t>(fixture_.vocab);
  const auto cache = cache_of(*model_, kContext);
  const ForwardResult result = run_rows(*model_, *cache, tree.tokens, tree.parents);
  cache->truncate(kContext);
  for (const std::int32_t leaf : {0, 11, 33, 63, 64, 69}) {
    std::vector<TokenId> line;
    for (const std::int32_t row : tree.path_to(leaf)) line.push_back(tree.tokens[static_cast<std::size_t>(row)]);
    const ForwardResult linear = append(*model_, *cache, line);
    cache->truncate(kContext);
    const auto expected = std::span(linear.logits).last(vocab);
    const auto got = std::span(result.logits).subspan(static_cast<std::size_t>(leaf) * vocab, vocab);
    EXPECT_TRUE(same_bits(got, expected)) << "row " << leaf << " at depth " << line.size();
  }
}

TEST_P(Invariance, TreeGrownLevelByLevel) {
  const TreeRows tree = wide_tree(fixture_.vocab, 70);
  const auto cache = cache_of(*model_, kContext);
  const ForwardResult whole = run_rows(*model_, *cache, tree.tokens, tree.parents);
  cache->truncate(kContext);
  std::vector<float> logits;
  for (std::size_t begin = 0; begin < tree.tokens.size();) {
    const std::size_t count = std::min<std::size_t>(1 + begin / 2, tree.tokens.size() - begin);
    const ForwardResult part = run_rows(*model_, *cache, std::span(tree.tokens).subspan(begin, count),
                                        std::span(tree.parents).subspan(begin, count));
    logits.insert(logits.end(), part.logits.begin(), part.logits.end());
    begin += count;
  }
  EXPECT_TRUE(same_bits(logits, whole.logits));
}

TEST_P(Invariance, KeptPathContinuesAsLinearText) {
  const TreeRows tree = wide_tree(fixture_.vocab, 70);
  const auto kept = cache_of(*model_, kContext);
  run_rows(*model_, *kept, tree.tokens, tree.parents);
  const std::vector<std::int32_t> path = tree.path_to(66);
  kept->keep(path);
  const auto linear = cache_of(*model_, kContext);
  for (const std::int32_t row : path) append(*model_, *linear, {&tree.tokens[static_cast<std::size_t>(row)], 1});
  ASSERT_EQ(kept->committed(), linear->committed());
  const std::vector<TokenId> next = {9, 8, 7};
  EXPECT_TRUE(same_bits(append(*model_, *kept, next).logits, append(*model_, *linear, next).logits));
}

TEST_P(Invariance, RaggedBatch) {
  const TreeRows tree = wide_tree(fixture_.vocab, 23);
  const std::vector<int> lengths = {5, kContext, 31};
  const std::vector<std::size_t> counts = {23, 1, 9};
  std::vector<std::unique_ptr<KVCache>> caches;
  std::vector<RowBlock> blocks;
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    caches.push_back(cache_of(*model_, lengths[b]));
    blocks.push_back({caches[b].get(), std::span(tree.tokens).first(counts[b]),
                      std::span(tree.parents).first(counts[b]), LogitsWanted::kAll});
  }
  ForwardResult together;
  model_->forward(blocks, together);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    caches[b]->truncate(lengths[b]);
    ForwardResult alone;
    model_->forward({&blocks[b], 1}, alone);
    const auto vocab = static_cast<std::size_t>(fixture_.vocab);
    const auto part =
        std::span(together.logits).subspan(static_cast<std::size_t>(together.row_begin[b]) * vocab, counts[b] * vocab);
    EXPECT_TRUE(same_bits(part, alone.logits)) << "block " << b;
  }
}

TEST_P(Invariance, Threads) {
  const TreeRows tree = wide_tree(fixture_.vocab, 19);
  const auto cache = cache_of(*model_, kContext);
  std::vector<int> taps(static_cast<std::size_t>(model_->info().layers) + 2);
  std::iota(taps.begin(), taps.end(), 0);
  const ForwardResult expected = run_rows(*model_, *cache, tree.tokens, tree.parents, taps);
  for (const int threads : {2, 3, 5}) {
    const auto model = open(threads);
    const auto other = cache_of(*model, kContext);
    const ForwardResult result = run_rows(*model, *other, tree.tokens, tree.parents, taps);
    EXPECT_TRUE(same_bits(result.logits, expected.logits)) << threads << " threads";
    EXPECT_EQ(result.argmax, expected.argmax);
    EXPECT_EQ(result.experts, expected.experts);
    EXPECT_TRUE(same_bits(result.tapped, expected.tapped));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Invariance, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace specmoe::nn::testing
