#include "core/nn/translated_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/nn/shared_vocabulary.h"
#include "tests/nn/model_fixture.h"
#include "tests/support/toy_model.h"

namespace specmoe::nn {
namespace {

using Ids = std::vector<TokenId>;

/// A toy of llama2's tokens that drafts for gpt2's. The toy's row after a text is known without caches or trees.
class TranslatedModelTest : public ::testing::Test {
 protected:
  static std::shared_ptr<const Tokenizer> tokenizer(const std::string& style) {
    return Tokenizer::from_file(SPECMOE_TEST_DATA "/golden/tokenizer/" + style + ".json");
  }
  SharedVocabulary shared() const {
    ModelInfo target;
    target.vocab_size = target_text_->vocab_size() + 1;  // a row without a token
    ModelInfo draft;
    draft.vocab_size = draft_text_->vocab_size();
    return {{*target_text_, target}, {*draft_text_, draft}};
  }

  Ids random_text(int length, std::uint32_t seed) const {
    std::mt19937 bits(seed);
    Ids text(static_cast<std::size_t>(length));
    for (TokenId& token : text) token = static_cast<TokenId>(bits() % static_cast<unsigned>(vocabulary_.target_size()));
    return text;
  }
  Ids in_draft_tokens(const Ids& text) const {
    Ids all = vocabulary_.begin();
    for (const TokenId token : text) {
      const auto spelled = vocabulary_.spelling(token);
      all.insert(all.end(), spelled.begin(), spelled.end());
    }
    return all;
  }
  /// What the row after `text` must be, from the toy itself.
  std::vector<float> expected(const Ids& text) const {
    const std::vector<float> draft = test::toy_logits(toy_, in_draft_tokens(text));
    std::vector<float> row(static_cast<std::size_t>(vocabulary_.target_size()), -INFINITY);
    for (const SharedToken& token : vocabulary_.shared()) row[token.target] = draft[token.draft];
    return row;
  }
  void expect_row(const ForwardResult& result, int row, const Ids& text, bool logits = true) const {
    const std::vector<float> wanted = expected(text);
    const auto best = std::max_element(wanted.begin(), wanted.end()) - wanted.begin();
    ASSERT_EQ(result.argmax[row], best) << "row " << row;
    if (!logits) return;
    ASSERT_TRUE(testing::same_bits(result.logits_row(row), wanted)) << "row " << row;
  }

  std::shared_ptr<const Tokenizer> target_text_ = tokenizer("gpt2");
  std::shared_ptr<const Tokenizer> draft_text_ = tokenizer("llama2");
  SharedVocabulary vocabulary_ = shared();
  test::ToyOptions toy_ = {.vocab = draft_text_->vocab_size(), .order = 12};
  TranslatedModel model_{test::make_toy_model(toy_), vocabulary_};
};

TEST_F(TranslatedModelTest, LooksLikeAModelOfTheTargetsVocabulary) {
  EXPECT_EQ(model_.info().vocab_size, target_text_->vocab_size() + 1);
  EXPECT_EQ(model_.info().max_positions, toy_.max_positions - 1) << "a begin token";
  int most = 0;
  for (TokenId id = 0; id < model_.info().vocab_size; ++id) most = std::max(most, model_.positions(id));
  EXPECT_GT(most, 3);
}

/// Passes of any size, of text and of trees that branch, paths kept and texts cut: a row hangs on its text alone.
TEST_F(TranslatedModelTest, RowsAreTheModelsOwnAfterTheSpelledText) {
  for (std::uint32_t seed = 0; seed < 8; ++seed) {
    const auto cache = model_.new_cache(64);
    Ids text = random_text(1 + static_cast<int>(seed) % 3, seed);
    ForwardResult result = testing::append(model_, *cache, text);
    for (std::size_t i = 0; i < text.size(); ++i) {
      expect_row(result, static_cast<int>(i), {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(i) + 1});
    }
    for (std::uint32_t round = 0; round < 6; ++round) {
      const Ids nodes = random_text(9, 100 * seed + round);
      const std::vector<std::int32_t> parents = {-1, -1, 0, 0, 1, 3, 3, 5, 2};
      const auto text_of = [&](std::int32_t row) {
        Ids path;
        for (; row >= 0; row = parents[row]) path.insert(path.begin(), nodes[row]);
        path.insert(path.begin(), text.begin(), text.end());
        return path;
      };
      int done = 0;
      for (const int count : {2, 3, 4}) {  // level by level
        result = testing::run_rows(model_, *cache, std::span(nodes).subspan(done, count),
                                   std::span(parents).subspan(done, count));
        for (int i = 0; i < count; ++i) expect_row(result, i, text_of(done + i));
        done += count;
      }
      ASSERT_EQ(cache->staged(), 9);
      const std::vector<std::vector<std::int32_t>> paths = {{0, 3, 5, 7}, {1}, {}, {1, 4}, {0, 2, 8}, {0, 3, 6}};
      cache->keep(paths[round]);
      for (const std::int32_t row : paths[round]) text.push_back(nodes[row]);
      ASSERT_EQ(cache->committed(), static_cast<int>(text.size()));
      if (round == 3) {
        text.resize(text.size() / 2);
        cache->truncate(static_cast<int>(text.size()));
      }
    }
  }
}

TEST_F(TranslatedModelTest, ArgmaxesComeWithoutLogitsAndForTheLastRowAlone) {
  ForwardResult result;
  result.want_logits = false;
  const auto one = model_.new_cache(16);
  const auto other = model_.new_cache(16);
  const Ids text = random_text(6, 3);
  const Ids second = random_text(4, 4);
  const std::vector<std::int32_t> chain = {-1, 0, 1, 2, 3, 4};
  const std::vector<RowBlock> blocks = {
      {one.get(), text, chain, LogitsWanted::kLast},
      {other.get(), second, std::span(chain).first(4), LogitsWanted::kAll},
  };
  model_.forward(blocks, result);
  EXPECT_EQ(result.row_begin, (std::vector<std::int32_t>{0, 1, 5}));
  EXPECT_TRUE(result.logits.empty());
  expect_row(result, 0, text, false);
  for (int i = 0; i < 4; ++i) expect_row(result, 1 + i, {second.begin(), second.begin() + i + 1}, false);
}

/// The draft model's own best token is often none of the target's.
TEST_F(TranslatedModelTest, TheArgmaxIsOfSharedTokens) {
  int own = 0;
  for (std::uint32_t seed = 0; seed < 30; ++seed) {
    const std::vector<float> draft = test::toy_logits(toy_, in_draft_tokens(random_text(2, seed)));
    const auto best = std::max_element(draft.begin(), draft.end()) - draft.begin();
    own += std::none_of(vocabulary_.shared().begin(), vocabulary_.shared().end(),
                        [&](const SharedToken& token) { return token.draft == best; });
  }
  EXPECT_GT(own, 3);
}

/// Every token of this text takes several rows of the draft model, more than its cache has at first.
TEST_F(TranslatedModelTest, TheDraftModelsCacheGrowsInTheMiddleOfATree) {
  Ids longest(static_cast<std::size_t>(vocabulary_.target_size()));
  std::iota(longest.begin(), longest.end(), 0);
  std::stable_sort(longest.begin(), longest.end(),
                   [&](TokenId a, TokenId b) { return model_.positions(a) > model_.positions(b); });
  longest.resize(12);
  const auto cache = model_.new_cache(12);
  Ids text(longest.begin(), longest.begin() + 3);
  testing::append(model_, *cache, text);
  const std::vector<std::int32_t> parents = {-1, 0, 0, 1, 2, 3, 3};
  const std::span<const TokenId> nodes = std::span(longest).subspan(3, 7);
  const auto text_of = [&](std::int32_t row) {
    Ids path;
    for (; row >= 0; row = parents[row]) path.insert(path.begin(), nodes[row]);
    path.insert(path.begin(), text.begin(), text.end());
    return path;
  };
  for (int i = 0; i < 7; ++i) {
    const ForwardResult result =
        testing::run_rows(model_, *cache, nodes.subspan(i, 1), std::span(parents).subspan(i, 1));
    expect_row(result, 0, text_of(i));
  }
  const std::vector<std::int32_t> path = {0, 1, 3, 6};
  cache->keep(path);
  text = text_of(6);
  EXPECT_GT(static_cast<int>(in_draft_tokens(text).size()), 12 + 12 / 2 + 1);
  text.push_back(5);
  expect_row(testing::append(model_, *cache, Ids{5}), 0, text);
}

/// A text that starts with the target's begin token does not get a second one.
TEST_F(TranslatedModelTest, ABeginTokenComesOnce) {
  ModelInfo info;
  info.vocab_size = draft_text_->vocab_size();
  const SharedVocabulary vocabulary({*draft_text_, info}, {*draft_text_, info});
  TranslatedModel model(test::make_toy_model(toy_), vocabulary);
  const TokenId begin = draft_text_->begin_tokens().front();
  for (const Ids& text : {Ids{begin, 300, 301}, Ids{300, 301}, Ids{300, begin}}) {
    const auto cache = model.new_cache(8);
    const ForwardResult result = testing::append(model, *cache, text);
    const auto row = result.logits_row(static_cast<int>(text.size()) - 1);
    Ids read = text;
    if (text.front() != begin) read.insert(read.begin(), begin);
    const std::vector<float> wanted = test::toy_logits(toy_, read);
    for (const SharedToken& token : vocabulary.shared()) ASSERT_EQ(row[token.target], wanted[token.draft]);
  }
}

TEST_F(TranslatedModelTest, WrongPassesAreRefusedBeforeAnythingIsStaged) {
  const auto cache = model_.new_cache(4);
  const Ids tokens = {1, 2};
  const std::vector<std::int32_t> chain = {-1, 0};
  ForwardResult result;
  const auto refuses = [&](const RowBlock& block) {
    EXPECT_THROW(model_.forward({&block, 1}, result), Error);
    EXPECT_EQ(cache->staged(), 0);
  };
  refuses({cache.get(), Ids{1, vocabulary_.target_size()}, chain});
  refuses({cache.get(), Ids{-1}, std::span(chain).first(1)});
  refuses({cache.get(), tokens, std::vector<std::int32_t>{-1, 1}});
  refuses({cache.get(), tokens, std::vector<std::int32_t>{-1}});
  refuses({cache.get(), Ids{1, 2, 3, 4, 5}, std::vector<std::int32_t>{-1, 0, 1, 2, 3}});
  const auto foreign = test::make_toy_model(toy_)->new_cache(4);
  EXPECT_THROW(testing::run_rows(model_, *foreign, tokens, chain), Error);
  EXPECT_THROW(testing::run_rows(model_, *cache, tokens, chain, {0}), Error) << "taps";
  const std::vector<RowBlock> twice(2, RowBlock{cache.get(), tokens, chain});
  EXPECT_THROW(model_.forward(twice, result), Error);
  EXPECT_THROW(cache->truncate(1), Error);
  EXPECT_THROW(cache->keep(chain), Error);
  expect_row(testing::append(model_, *cache, tokens), 1, tokens);
}

}  // namespace
}  // namespace specmoe::nn
