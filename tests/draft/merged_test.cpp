#include <gtest/gtest.h>

#include "core/engine.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"
#include "tests/support/two_tokens.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

const std::vector<TokenId> kPrompt = {3, 1, 4, 1, 5};

/// The toy drafter that a path names.
ToyOptions toy_of(const std::string& path) { return {.own_seed = path == "first" ? 7U : 8U, .agreement = 0.5}; }

std::shared_ptr<LanguageModel> open_toy(const std::string& path, const std::string&) {
  return make_toy_model(toy_of(path));
}

Draft<float> draft_of(const std::string& tree_spec, double temperature,
                      const std::string& spec = "merged(independent(path=first), independent(path=second))") {
  const auto drafter = drafters().create(spec);
  const auto target = make_toy_model({});
  drafter->attach({target, open_toy});
  return test::first_draft(target, *drafter, tree_spec, kPrompt, {.temperature = temperature, .seed = 5});
}

/// What the drafter that a path names says after the prompt and a node's path.
std::vector<double> row_after(const std::string& path, const TokenTree& tree, NodeId node) {
  std::vector<TokenId> below;
  for (; node != TokenTree::kRoot; node = tree.parent(node)) below.push_back(tree.token(node));
  std::vector<TokenId> text = kPrompt;
  text.insert(text.end(), below.rbegin(), below.rend());
  return test::toy_probs(toy_of(path), text);
}

TEST(Merged, EachChildIsDrawnFromItsOwnDrafter) {
  Draft<float> draft = draft_of("expansion(2,3)", 1.0);
  EXPECT_EQ(draft.law, DraftLaw::kMultiDrafter);
  ASSERT_EQ(draft.tree.size(), 1 + 2 + 6);
  for (NodeId node = 0; node < draft.tree.size(); ++node) {
    int child = 0;
    for (NodeId n = draft.tree.first_child(node); n != TokenTree::kNone; n = draft.tree.next_sibling(n), ++child) {
      const std::vector<double> expected = row_after(child % 2 == 0 ? "first" : "second", draft.tree, node);
      for (TokenId x = 0; x < ToyOptions{}.vocab; ++x) ASSERT_NEAR(draft.row(n)[x], expected[x], 1e-6) << "node " << n;
    }
  }
}

TEST(Merged, MayBeAttachedAgain) {
  const auto drafter = drafters().create("merged(eagle(path=narrow), eagle(path=wide))");
  drafter->attach({make_toy_model({}), open_toy});
  const std::vector<int> taps = drafter->taps();
  EXPECT_EQ(taps.size(), 3U);
  drafter->attach({make_toy_model({}), open_toy});
  EXPECT_EQ(drafter->taps(), taps);
}

/// Heads that read different boundaries draft as each would alone.
TEST(Merged, EachHeadReadsItsOwnHiddenRows) {
  Draft<float> merged = draft_of("expansion(2)", 1.0, "merged(eagle(path=narrow), eagle(path=wide))");
  Draft<float> narrow = draft_of("chain(1)", 1.0, "eagle(path=narrow)");
  Draft<float> wide = draft_of("chain(1)", 1.0, "eagle(path=wide)");
  ASSERT_EQ(merged.tree.size(), 3);
  for (TokenId x = 0; x < ToyOptions{}.vocab; ++x) {
    ASSERT_EQ(merged.row(1)[x], narrow.row(1)[x]);
    ASSERT_EQ(merged.row(2)[x], wide.row(1)[x]);
  }
}

TEST(Merged, GreedyDraftsTakeTheLikeliestOfEachInTurn) {
  const Draft<float> draft = draft_of("expansion(2)", 0.0);
  EXPECT_EQ(draft.law, DraftLaw::kDeterministic);
  const auto best = [](const std::vector<double>& row, TokenId without) {
    TokenId found = -1;
    for (TokenId x = 0; x < static_cast<TokenId>(row.size()); ++x) {
      if (x != without && (found < 0 || row[x] > row[found])) found = x;
    }
    return found;
  };
  const TokenId first = best(row_after("first", draft.tree, 0), -1);
  EXPECT_EQ(draft.tree.token(1), first);
  EXPECT_EQ(draft.tree.token(2), best(row_after("second", draft.tree, 0), first));
}

/// Topologies that choose among nodes by their probabilities may not choose among drawn ones.
TEST(Merged, WhereTheTopologyChoosesNothingIsDrawn) {
  for (const std::string& tree : tree_policies().names()) {
    const auto policy = tree_policies().create(tree);
    const bool chooses = policy->law() == DraftLaw::kDeterministic;
    const Draft<float> draft = draft_of(tree, 1.0);
    EXPECT_EQ(draft.law, chooses ? DraftLaw::kDeterministic : DraftLaw::kMultiDrafter) << tree;
    EXPECT_LE(draft.tree.size(), policy->max_nodes()) << tree;
  }
}

TEST(Merged, RefusesOneDrafterAndTokensWithoutProbabilities) {
  EXPECT_THROW(drafters().create("merged(ngram, independent(path=x))"), Error);
  EXPECT_THROW(drafters().create("merged(independent(path=x), nobody)"), Error);
  EXPECT_THROW(drafters().create("merged")->attach({make_toy_model({}), open_toy}), Error);
  EXPECT_THROW(drafters().create("merged(independent(path=x))")->attach({make_toy_model({}), open_toy}), Error);
}

TEST(Merged, KeepsTheTargetsDistribution) {
  const auto open_small = [](const std::string& path, const std::string&) {
    ToyOptions drafter = toy_of(path);
    drafter.vocab = test::kTwoTokenTarget.vocab;
    drafter.order = test::kTwoTokenTarget.order;
    return make_toy_model(drafter);
  };
  Engine engine(make_toy_model(test::kTwoTokenTarget),
                {.drafter = "merged(independent(path=first), independent(path=second))",
                 .tree = "expansion(2,2)",
                 .acceptance = "multi_step"},
                open_small);
  EXPECT_LT(test::two_tokens(engine).statistic, test::kTwoTokenBound);
}

}  // namespace
}  // namespace specmoe
