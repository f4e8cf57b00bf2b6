#include "core/logit_changes.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernels/check.h"
#include "tests/support/every_third.h"

namespace specmoe {
namespace {

constexpr int kVocab = 7;
const std::vector<TokenId> kPrompt = {3, 1, 4};
const std::vector<float> kLogits = {0.5F, -1.0F, 2.0F, 0.0F, 1.5F, -0.5F, 1.0F};

/// A processor that is a function.
class Calls final : public LogitsProcessor {
 public:
  using Function = std::function<void(std::span<const TokenId>, std::span<const TokenId>, std::span<float>)>;
  explicit Calls(Function function) : function_(std::move(function)) {}
  void process(std::span<const TokenId> prompt, std::span<const TokenId> output, std::span<float> logits) override {
    function_(prompt, output, logits);
  }

 private:
  Function function_;
};

LogitChanges changes_by(Calls::Function function, const SamplingParams& sampling = {}) {
  LogitChanges changes;
  changes.reset(kVocab, 16, kPrompt, sampling, std::make_shared<Calls>(std::move(function)));
  return changes;
}

TEST(LogitChanges, WithoutAnyTheLogitsAreTheSameOnes) {
  LogitChanges changes;
  EXPECT_FALSE(changes.any());
  changes.reset(kVocab, 16, kPrompt, {.temperature = 0.5, .top_k = 2}, nullptr);
  changes.add(2);
  EXPECT_FALSE(changes.any());
  EXPECT_EQ(changes.applied(kLogits, TokenTree(2), TokenTree::kRoot).data(), kLogits.data());
}

/// Prompt, output and path in order; the text is whole again after every node.
TEST(LogitChanges, TheProcessorSeesEachNodesOwnText) {
  std::vector<TokenId> seen;
  LogitChanges changes =
      changes_by([&](std::span<const TokenId> prompt, std::span<const TokenId> output, std::span<float>) {
        EXPECT_TRUE(std::ranges::equal(prompt, kPrompt));
        seen.assign(output.begin(), output.end());
      });
  EXPECT_TRUE(changes.any());
  changes.add(6);
  TokenTree tree(6);
  const NodeId left = tree.add(TokenTree::kRoot, 0);
  const NodeId right = tree.add(TokenTree::kRoot, 5);
  const NodeId below = tree.add(left, 2);
  const std::vector<std::pair<NodeId, std::vector<TokenId>>> expected = {
      {below, {6, 0, 2}}, {right, {6, 5}}, {TokenTree::kRoot, {6}}, {left, {6, 0}}};
  for (const auto& [node, output] : expected) {
    changes.applied(kLogits, tree, node);
    EXPECT_EQ(seen, output) << "node " << node;
  }
}

TEST(LogitChanges, TheProcessorComesAfterThePenalties) {
  std::vector<float> seen;
  LogitChanges changes = changes_by(
      [&](auto, auto, std::span<float> logits) {
        seen.assign(logits.begin(), logits.end());
        logits[0] = -INFINITY;
        logits[1] += 4.0F;
      },
      {.presence_penalty = 0.25});
  changes.add(4);
  const auto applied = changes.applied(kLogits, TokenTree(4), TokenTree::kRoot);
  EXPECT_EQ(seen, (std::vector<float>{0.5F, -1.0F, 2.0F, 0.0F, 1.25F, -0.5F, 1.0F}));
  EXPECT_EQ(std::vector<float>(applied.begin(), applied.end()),
            (std::vector<float>{-INFINITY, 3.0F, 2.0F, 0.0F, 1.25F, -0.5F, 1.0F}));
  EXPECT_EQ(kLogits[0], 0.5F) << "the model's own are untouched";
}

TEST(LogitChanges, WhatCannotBeSampledFromIsRefused) {
  const auto refused = [](Calls::Function function) {
    LogitChanges changes = changes_by(std::move(function));
    TokenTree tree(4);
    const NodeId node = tree.add(TokenTree::kRoot, 2);
    try {
      changes.applied(kLogits, tree, node);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto sets = [](int index, float value) {
    return [=](auto, auto, std::span<float> logits) { logits[index] = value; };
  };
  for (const int index : {0, kVocab - 1}) {
    EXPECT_EQ(refused(sets(index, -INFINITY)), "");
    EXPECT_NE(refused(sets(index, NAN)).find("left NaN or infinity at node 1"), std::string::npos);
    EXPECT_NE(refused(sets(index, INFINITY)).find("left NaN or infinity at node 1"), std::string::npos);
  }
}

TEST(LogitChanges, WhereEveryTokenIsForbiddenThereAreNoLogits) {
  LogitChanges changes = changes_by([](auto, auto output, std::span<float> logits) {
    if (output.empty()) std::ranges::fill(logits, -INFINITY);
  });
  EXPECT_TRUE(changes.applied(kLogits, TokenTree(4), TokenTree::kRoot).empty());
  changes.add(2);
  EXPECT_EQ(changes.applied(kLogits, TokenTree(2), TokenTree::kRoot).size(), kLogits.size());
}

TEST(LogitChanges, ASecondTextForgetsTheFirst) {
  LogitChanges changes =
      changes_by([](auto, auto, std::span<float> logits) { logits[2] = -INFINITY; }, {.repetition_penalty = 2.0});
  changes.add(2);
  changes.reset(kVocab, 16, kPrompt, {}, nullptr);
  EXPECT_FALSE(changes.any());
  std::vector<TokenId> seen;
  changes.reset(kVocab, 16, std::vector<TokenId>{5}, {},
                std::make_shared<Calls>([&](std::span<const TokenId> prompt, std::span<const TokenId> output, auto) {
                  EXPECT_TRUE(output.empty());
                  seen.assign(prompt.begin(), prompt.end());
                }));
  changes.applied(kLogits, TokenTree(5), TokenTree::kRoot);
  EXPECT_EQ(seen, std::vector<TokenId>{5});
}

}  // namespace
}  // namespace specmoe
