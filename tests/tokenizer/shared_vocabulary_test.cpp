#include "core/nn/shared_vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/check.h"
#include "tests/tokenizer/tokenizer_fixture.h"

namespace specmoe::nn {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;

/// A tokenizer and a model of its size.
struct Side {
  explicit Side(std::shared_ptr<const Tokenizer> text) : tokenizer(std::move(text)) {
    model.name = "model";
    model.vocab_size = tokenizer->vocab_size();
  }
  explicit Side(const std::string& style) : Side(testing::load_fixture(style)) {}

  TokenId id(const std::string& token) const {
    const auto found = tokenizer->id_of(token);
    EXPECT_TRUE(found) << token;
    return found.value_or(0);
  }
  std::string bytes(std::span<const TokenId> ids) const {
    std::string all;
    for (const TokenId token : ids) all += tokenizer->token_bytes(token);
    return all;
  }
  operator TokenizedModel() const { return {*tokenizer, model}; }

  std::shared_ptr<const Tokenizer> tokenizer;
  ModelInfo model;
};

Ids spelling(const SharedVocabulary& vocabulary, TokenId target) {
  const auto span = vocabulary.spelling(target);
  return {span.begin(), span.end()};
}

TokenId shared_with(const SharedVocabulary& vocabulary, TokenId target) {
  for (const SharedToken& token : vocabulary.shared()) {
    if (token.target == target) return token.draft;
  }
  return -1;
}

/// A byte-level tokenizer of these tokens, which are not merged; special ones after them.
Side made_side(const Ids& ids, const std::vector<std::string>& tokens, const std::vector<std::string>& special = {}) {
  json vocab = json::object();
  for (std::size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = ids[i];
  json added = json::array();
  TokenId next = ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end()) + 1;
  for (const std::string& content : special) {
    added.push_back({{"id", next++},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return Side(Tokenizer::from_json(json{{"version", "1.0"},
                                        {"added_tokens", added},
                                        {"normalizer", nullptr},
                                        {"pre_tokenizer", nullptr},
                                        {"post_processor", nullptr},
                                        {"decoder", {{"type", "ByteFallback"}}},
                                        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}}
                                       .dump()));
}
Side made_side(const std::vector<std::string>& tokens, const std::vector<std::string>& special = {}) {
  Ids ids(tokens.size());
  std::iota(ids.begin(), ids.end(), 0);
  return made_side(ids, tokens, special);
}

class SharedVocabularyPairs : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

/// Whatever the kinds of tokenizer, what is read is the same text, and what is shared is the same bytes.
TEST_P(SharedVocabularyPairs, KeepBytes) {
  const Side target(GetParam().first);
  const Side draft(GetParam().second);
  const SharedVocabulary vocabulary(target, draft);
  ASSERT_EQ(vocabulary.target_size(), target.model.vocab_size);
  int several = 0;
  for (TokenId id = 0; id < target.model.vocab_size; ++id) {
    const Ids spelled = spelling(vocabulary, id);
    ASSERT_FALSE(spelled.empty()) << id;
    several += spelled.size() > 1 ? 1 : 0;
    if (target.tokenizer->is_special(id)) continue;
    EXPECT_EQ(draft.bytes(spelled), target.tokenizer->token_bytes(id)) << id;
  }
  EXPECT_GT(several, 3);
  std::set<TokenId> drafts;
  TokenId before = -1;
  for (const SharedToken& token : vocabulary.shared()) {
    EXPECT_GT(token.target, before);
    before = token.target;
    EXPECT_TRUE(drafts.insert(token.draft).second);
    EXPECT_EQ(spelling(vocabulary, token.target), Ids{token.draft});
  }
  EXPECT_GT(vocabulary.shared().size(), 150U);
}

INSTANTIATE_TEST_SUITE_P(Styles, SharedVocabularyPairs,
                         ::testing::Values(std::pair{"gpt2", "llama2"}, std::pair{"llama2", "gpt2"},
                                           std::pair{"llama3", "gemma"}, std::pair{"mixtral", "odd"},
                                           std::pair{"odd", "qwen2"}, std::pair{"deepseek3", "llama2_legacy"}),
                         [](const auto& info) { return concat(info.param.first, "_", info.param.second); });

TEST(SharedVocabulary, MatchesByBytesWhateverTheSpelling) {
  const Side target("gpt2");
  const Side draft("llama2");
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(shared_with(vocabulary, target.id("\u0120the")), draft.id("\u2581the"));
  EXPECT_EQ(shared_with(vocabulary, target.id("A")), draft.id("A")) << "not <0x41>, which comes first there";
  EXPECT_EQ(shared_with(vocabulary, target.id("\u0101")), draft.id("<0x01>"));
  EXPECT_EQ(shared_with(vocabulary, target.id("\u00FF")), draft.id("<0xFF>")) << "a part of a character";
}

TEST(SharedVocabulary, ReadsTheRestByTheLongestPieces) {
  const Side draft = made_side({"a", "b", "c", "ab", "abc", "bca"});
  const Side target = made_side({"abca", "abab", "cc"});
  EXPECT_THROW(SharedVocabulary(target, draft), Error) << "nothing shared";
  const Side with_a = made_side({"abca", "abab", "cc", "a"});
  const SharedVocabulary vocabulary(with_a, draft);
  EXPECT_EQ(spelling(vocabulary, 0), (Ids{4, 0}));
  EXPECT_EQ(spelling(vocabulary, 1), (Ids{3, 3}));
  EXPECT_EQ(spelling(vocabulary, 2), (Ids{2, 2}));
  EXPECT_EQ(vocabulary.shared(), (std::vector<SharedToken>{{3, 0}}));
}

TEST(SharedVocabulary, OneOfSeveralTokensWithTheSameBytesIsShared) {
  const Side target = made_side({"<0x41>", "A", "B"});
  const Side draft = made_side({"B", "<0x41>", "<0x42>", "A"});
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(vocabulary.shared(), (std::vector<SharedToken>{{1, 3}, {2, 0}}));
  EXPECT_EQ(spelling(vocabulary, 0), Ids{3}) << "read as the same, never drafted";
}

/// Qwen2's sizes differ by such rows.
TEST(SharedVocabulary, RowsWithoutATokenAreNotShared) {
  Side target("gpt2");
  Side draft("gpt2");
  target.model.vocab_size += 3;
  draft.model.vocab_size += 7;
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(vocabulary.target_size(), target.model.vocab_size);
  EXPECT_EQ(vocabulary.shared().size(), static_cast<std::size_t>(target.tokenizer->vocab_size()));
  EXPECT_EQ(draft.bytes(spelling(vocabulary, target.model.vocab_size - 1)), "\uFFFD");
  draft.model.vocab_size = 400;  // the tokenizer has more tokens than the model has rows
  const SharedVocabulary small(target, draft);
  EXPECT_EQ(small.shared().size(), 400U);
  for (TokenId id = 0; id < target.model.vocab_size; ++id) {
    for (const TokenId token : small.spelling(id)) EXPECT_LT(token, 400);
  }
}

TEST(SharedVocabulary, BytesThatCannotBeSpelledReadAsTheDraftersUnknown) {
  const Side target = made_side({"a", "z", "az"});
  EXPECT_THROW(SharedVocabulary(target, made_side({"a", "b"})), Error);
  const SharedVocabulary vocabulary(target, made_side({"a", "\uFFFD"}));
  EXPECT_EQ(spelling(vocabulary, 1), Ids{1});
  EXPECT_EQ(spelling(vocabulary, 2), (Ids{0, 1}));
}

TEST(SharedVocabulary, SpecialTokensMatchBySpellingThenByWhatTheyAreFor) {
  Side target("llama3");  // begin_of_text (its template), end_of_text, eot_id
  Side draft("llama2");   // unk, s (its template), /s
  target.model.stop_tokens = {target.id("<|eot_id|>"), target.id("<|end_of_text|>")};
  draft.model.stop_tokens = {draft.id("</s>")};
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(vocabulary.begin(), Ids{draft.id("<s>")});
  EXPECT_EQ(shared_with(vocabulary, target.id("<|begin_of_text|>")), draft.id("<s>"));
  EXPECT_EQ(shared_with(vocabulary, target.id("<|eot_id|>")), draft.id("</s>"));
  EXPECT_EQ(shared_with(vocabulary, target.id("<|end_of_text|>")), -1) << "one has it already";
  EXPECT_EQ(spelling(vocabulary, target.id("<|end_of_text|>")), Ids{draft.id("</s>")});

  const Side mixtral("mixtral");  // the same spelling, no stop tokens told
  const SharedVocabulary alike(mixtral, draft);
  for (const char* token : {"<unk>", "<s>", "</s>"}) {
    EXPECT_EQ(shared_with(alike, mixtral.id(token)), draft.id(token)) << token;
  }
}

TEST(SharedVocabulary, ADrafterWithoutABeginTokenReadsItsEnd) {
  Side target("llama3");
  Side draft("qwen2");
  target.model.stop_tokens = {target.id("<|end_of_text|>")};
  draft.model.stop_tokens = {draft.id("<|endoftext|>")};
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(vocabulary.begin(), Ids{});
  EXPECT_EQ(spelling(vocabulary, target.id("<|begin_of_text|>")), Ids{draft.id("<|endoftext|>")});
  EXPECT_EQ(shared_with(vocabulary, target.id("<|begin_of_text|>")), -1);
  EXPECT_EQ(shared_with(vocabulary, target.id("<|end_of_text|>")), draft.id("<|endoftext|>"));
  EXPECT_EQ(draft.bytes(spelling(vocabulary, target.id("<|eot_id|>"))), "<|eot_id|>") << "no counterpart: its text";
}

/// An ordinary token of the drafter that only looks like a special one is text.
TEST(SharedVocabulary, SpecialTokensAreNotText) {
  const Side target = made_side({"a", "<", ">", "x"}, {"<x>"});
  const Side draft = made_side({"a", "<", ">", "x", "<x>"});
  const SharedVocabulary vocabulary(target, draft);
  EXPECT_EQ(shared_with(vocabulary, target.id("<x>")), -1);
  EXPECT_EQ(spelling(vocabulary, target.id("<x>")), Ids{draft.id("<x>")});
  const SharedVocabulary turned(draft, target);
  EXPECT_EQ(turned.shared().size(), 4U);
  EXPECT_EQ(spelling(turned, draft.id("<x>")), (Ids{target.id("<"), target.id("x"), target.id(">")}));
}

}  // namespace
}  // namespace specmoe::nn
