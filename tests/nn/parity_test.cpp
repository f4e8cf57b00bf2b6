// Logits, router choices and greedy texts of transformers, however the rows are cut into passes. `tests/run.sh parity`
// prints these tests as a table of architectures and modes.
#include <algorithm>
#include <cmath>

#include "core/engine.h"
#include "tests/nn/model_fixture.h"

namespace specmoe::nn::testing {
namespace {

double largest(std::span<const float> values) {
  double most = 0;
  for (const float value : values) most = std::max(most, std::abs(static_cast<double>(value)));
  return most;
}

/// Rows [first, ...) of the fixture against `logits`.
void expect_parity(const Fixture& fixture, std::size_t first, std::span<const float> logits) {
  const auto vocab = static_cast<std::size_t>(fixture.vocab);
  const std::span<const float> expected = std::span(fixture.logits).subspan(first * vocab, logits.size());
  const double tolerance = 1e-4 * std::max(1.0, largest(fixture.logits));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    ASSERT_NEAR(logits[i], expected[i], tolerance)
        << fixture.name << " position " << first + i / vocab << " token " << i % vocab;
  }
}

class Parity : public ::testing::TestWithParam<std::string> {
 protected:
  Parity() : fixture_(load_fixture(GetParam())), model_(load(fixture_.folder)), cache_(model_->new_cache(128)) {}

  /// Appends ids [committed, committed + count) and compares.
  void append_and_compare(std::size_t count) {
    const auto first = static_cast<std::size_t>(cache_->committed());
    const auto ids = std::span<const TokenId>(fixture_.ids).subspan(first, count);
    expect_parity(fixture_, first, append(*model_, *cache_, ids).logits);
  }

  Fixture fixture_;
  std::shared_ptr<LanguageModel> model_;
  std::unique_ptr<KVCache> cache_;
};

TEST_P(Parity, Whole) {
  const ForwardResult result = append(*model_, *cache_, fixture_.ids);
  expect_parity(fixture_, 0, result.logits);
  EXPECT_EQ(result.experts, fixture_.routers);
  EXPECT_EQ(result.moe_rows, static_cast<int>(fixture_.ids.size()));
}

TEST_P(Parity, OneByOne) {
  for (std::size_t i = 0; i < fixture_.ids.size(); ++i) append_and_compare(1);
}

TEST_P(Parity, Chunks) {
  for (const std::size_t count : {7, 13, 5, 5, 5, 2}) append_and_compare(count);
  EXPECT_EQ(cache_->committed(), static_cast<int>(fixture_.ids.size()));
}

/// A tree that holds the true path among wrong branches, committed along the true path, again and again.
TEST_P(Parity, TreeBlocks) {
  append_and_compare(12);
  const auto vocab = static_cast<std::size_t>(fixture_.vocab);
  while (cache_->committed() + 3 <= static_cast<int>(fixture_.ids.size())) {
    const auto at = static_cast<std::size_t>(cache_->committed());
    const auto wrong = [&](std::size_t i) { return (fixture_.ids[at + i] + 57) % fixture_.vocab; };
    const std::vector<TokenId> tokens = {wrong(0), fixture_.ids[at],    wrong(1), fixture_.ids[at + 1],
                                         wrong(2), fixture_.ids[at + 2]};
    const std::vector<std::int32_t> parents = {-1, -1, 1, 1, 2, 3};
    const std::vector<std::int32_t> path = {1, 3, 5};
    const ForwardResult result = run_rows(*model_, *cache_, tokens, parents);
    for (std::size_t i = 0; i < path.size(); ++i) {
      expect_parity(fixture_, at + i, {result.logits.data() + static_cast<std::size_t>(path[i]) * vocab, vocab});
    }
    cache_->keep(path);
  }
}

TEST_P(Parity, AfterRollback) {
  append_and_compare(15);
  const std::vector<TokenId> wrong = {5, 6, 7, 8, 9};
  append(*model_, *cache_, wrong);
  cache_->truncate(13);
  append_and_compare(9);
  cache_->truncate(0);
  append_and_compare(fixture_.ids.size());
}

TEST_P(Parity, GreedyText) {
  std::vector<TokenId> text(fixture_.greedy.begin(), fixture_.greedy.begin() + fixture_.prompt);
  TokenId next = append(*model_, *cache_, text).argmax.back();
  while (text.size() < fixture_.greedy.size()) {
    text.push_back(next);
    next = append(*model_, *cache_, {&text.back(), 1}).argmax.back();
  }
  EXPECT_EQ(text, fixture_.greedy);
}

/// Drafts that are mostly right, always wrong or looked up, on chains and trees: the text stays the same.
TEST_P(Parity, SpeculativeText) {
  Request request;
  request.prompt.assign(fixture_.greedy.begin(), fixture_.greedy.begin() + fixture_.prompt);
  request.max_new_tokens = static_cast<int>(fixture_.greedy.size()) - fixture_.prompt;
  for (const char* drafter : {"ngram", "synthetic(alpha=0.8)", "synthetic(alpha=0)"}) {
    for (const char* tree : {"chain(5)", "expansion(3,2,1)"}) {
      Engine engine(model_, {.drafter = drafter, .tree = tree, .allow_lossy = true});
      const auto records = engine.generate({&request, 1});
      std::vector<TokenId> text = request.prompt;
      text.insert(text.end(), records[0].tokens.begin(), records[0].tokens.end());
      EXPECT_EQ(text, fixture_.greedy) << drafter << " " << tree;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, ::testing::ValuesIn(fixture_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace specmoe::nn::testing
