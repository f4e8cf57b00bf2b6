#include "core/token_counts.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/kernel_data.h"
#include "tests/support/penalties.h"

namespace specmoe {
namespace {

const std::vector<SamplingParams> kPenalties = {
    {.repetition_penalty = 1.3}, {.repetition_penalty = 0.7},
    {.presence_penalty = 0.9},   {.frequency_penalty = 0.4},
    {.frequency_penalty = -0.4}, {.repetition_penalty = 1.2, .presence_penalty = -1.5, .frequency_penalty = 0.3},
};

/// Few enough tokens that prompt, output and path share some, and a path repeats its own.
constexpr int kVocab = 11;

struct Text {
  explicit Text(std::uint32_t seed) : bits(seed) {
    for (int i = 0; i < 6; ++i) prompt.push_back(token());
    tree.reset(prompt.back());
  }
  TokenId token() { return static_cast<TokenId>(bits() % kVocab); }
  void grow(int nodes) {
    tree.reset(output.empty() ? prompt.back() : output.back());
    while (tree.size() < nodes) tree.add(static_cast<NodeId>(bits() % tree.size()), token());
  }
  std::vector<TokenId> output_at(NodeId node) const {
    std::vector<TokenId> all = output;
    const std::size_t path = all.size();
    for (NodeId n = node; n != TokenTree::kRoot; n = tree.parent(n)) {
      all.insert(all.begin() + static_cast<std::ptrdiff_t>(path), tree.token(n));
    }
    return all;
  }

  std::mt19937 bits;
  std::vector<TokenId> prompt, output;
  TokenTree tree;
};

/// Node after node and step after step: nothing of one node's path may be left for the next.
TEST(TokenCounts, EveryNodeIsPenalisedByItsOwnText) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    Text text(seed);
    TokenCounts counts;
    counts.reset(kVocab, text.prompt);
    for (int step = 0; step < 4; ++step) {
      text.grow(14);
      for (NodeId node = text.tree.size() - 1; node >= 0; --node) {
        const std::vector<float> logits = kernels::random_floats(kVocab, seed + 100, 4.0F);
        for (const SamplingParams& sampling : kPenalties) {
          std::vector<float> got = logits;
          counts.penalise(got, text.tree, node, sampling);
          const auto expected = test::penalised(logits, text.prompt, text.output_at(node), sampling);
          for (TokenId x = 0; x < kVocab; ++x) {
            kernels::expect_close(got[x], expected[x], kernels::kElementwise,
                                  concat("seed ", seed, " step ", step, " node ", node, " token ", x));
          }
        }
      }
      for (int i = 0; i < 2; ++i) {
        text.output.push_back(text.token());
        counts.add(text.output.back());
      }
    }
  }
}

TEST(TokenCounts, SiblingsWithDifferentTokensGetDifferentRows) {
  TokenCounts counts;
  counts.reset(kVocab, std::vector<TokenId>{1});
  TokenTree tree(1);
  const NodeId left = tree.add(TokenTree::kRoot, 2);
  const NodeId right = tree.add(TokenTree::kRoot, 3);
  const SamplingParams sampling = {.frequency_penalty = 0.5};
  std::vector<float> after_left(kVocab, 0.0F), after_right(kVocab, 0.0F);
  counts.penalise(after_left, tree, left, sampling);
  counts.penalise(after_right, tree, right, sampling);
  for (TokenId x = 0; x < kVocab; ++x) {
    EXPECT_EQ(after_left[x], x == 2 ? -0.5F : 0.0F);
    EXPECT_EQ(after_right[x], x == 3 ? -0.5F : 0.0F);
  }
}

TEST(TokenCounts, RepetitionSeesThePromptAndTheOthersTheOutputAlone) {
  TokenCounts counts;
  counts.reset(kVocab, std::vector<TokenId>{4, 4, 5});
  counts.add(5);
  counts.add(6);
  counts.add(6);
  std::vector<float> logits(kVocab, 1.0F);
  logits[4] = -1.0F;
  const TokenTree tree(6);
  std::vector<float> repetition = logits, presence = logits, frequency = logits;
  counts.penalise(repetition, tree, TokenTree::kRoot, {.repetition_penalty = 2.0});
  counts.penalise(presence, tree, TokenTree::kRoot, {.presence_penalty = 0.25});
  counts.penalise(frequency, tree, TokenTree::kRoot, {.frequency_penalty = 0.25});
  const auto at_456 = [](const std::vector<float>& row) { return std::vector<float>{row[4], row[5], row[6], row[7]}; };
  EXPECT_EQ(at_456(repetition), (std::vector<float>{-2.0F, 0.5F, 0.5F, 1.0F}));
  EXPECT_EQ(at_456(presence), (std::vector<float>{-1.0F, 0.75F, 0.75F, 1.0F}));
  EXPECT_EQ(at_456(frequency), (std::vector<float>{-1.0F, 0.75F, 0.5F, 1.0F}));
}

TEST(TokenCounts, PenaltiesThatAreOffLeaveEveryBit) {
  TokenCounts counts;
  counts.reset(kVocab, std::vector<TokenId>{4, 4, 5});
  counts.add(6);
  std::vector<float> logits = kernels::random_floats(kVocab, 1, 9.0F);
  const std::vector<float> before = logits;
  counts.penalise(logits, TokenTree(6), TokenTree::kRoot, {});
  EXPECT_EQ(logits, before);
}

/// An engine keeps one for each sequence and begins it for those alone that have penalties.
TEST(TokenCounts, CountNothingUntilBegun) {
  TokenCounts counts;
  counts.add(100);
  counts.reset(kVocab, std::vector<TokenId>{1});
  counts.add(2);
  counts.reset(kVocab, std::vector<TokenId>{1});
  std::vector<float> logits(kVocab, 1.0F);
  counts.penalise(logits, TokenTree(1), TokenTree::kRoot, {.repetition_penalty = 2.0, .presence_penalty = 0.25});
  std::vector<float> expected(kVocab, 1.0F);
  expected[1] = 0.5F;
  EXPECT_EQ(logits, expected) << "another text's tokens";
}

}  // namespace
}  // namespace specmoe
