#include "draft/depth_proposals.h"

#include <gtest/gtest.h>

#include "core/engine.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"
#include "tests/support/two_tokens.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

/// Drafters of three depths.
class ByDepth : public testing::TestWithParam<std::string> {
 protected:
  static Draft<float> draft_of(const std::string& tree_spec, const std::vector<TokenId>& prompt) {
    const auto drafter = drafters().create(GetParam());
    const auto target = make_toy_model({});
    drafter->attach({target, [](const std::string&, const std::string&) { return make_toy_model({}); }});
    return test::first_draft(target, *drafter, tree_spec, prompt, {.temperature = 1.0, .seed = 5});
  }
};

/// Whatever the topology asks about, one level after another or not, there is one row a depth, and none deeper.
TEST_P(ByDepth, OneRowServesAllNodesOfADepth) {
  const Draft<float> chain = draft_of("chain(9)", {3, 1, 4});
  EXPECT_EQ(chain.tree.max_depth(), 3);
  for (const char* tree : {"expansion(3,2,2,2)", "chains(k=3,gamma=5)", "static_ranks(preset=medusa)"}) {
    Draft<float> draft = draft_of(tree, {3, 1, 4});
    EXPECT_EQ(draft.tree.max_depth(), 3) << tree;
    EXPECT_EQ(draft.rows.size(), 3) << tree;
    for (NodeId node = 1; node < draft.tree.size(); ++node) {
      const int row = draft.row_of[node];
      EXPECT_TRUE(row < 0 || row == draft.tree.depth(node) - 1) << tree;
    }
  }
  const Draft<float> best = draft_of("best_first(nodes=40,batch=1,depth=6)", {3, 1, 4});
  EXPECT_EQ(best.tree.max_depth(), 3);
  EXPECT_EQ(best.rows.size(), 3);
}

/// The joint law of two tokens, by chi-square, where siblings and cousins are drawn from rows that they share.
TEST_P(ByDepth, KeepsTheTargetsDistribution) {
  const ToyOptions& target = test::kTwoTokenTarget;
  for (const char* tree : {"expansion(2,2)", "expansion(2,2,law=without_replacement)", "static_ranks(preset=medusa)"}) {
    Engine engine(make_toy_model(target), {.drafter = GetParam(), .tree = tree, .acceptance = "multi_step"},
                  [&](const std::string&, const std::string&) { return make_toy_model(target); });
    ASSERT_TRUE(engine.lossless()) << tree;
    const test::TwoTokens found = test::two_tokens(engine);
    EXPECT_GT(found.accepted, test::kTwoTokenTexts / 10) << tree;
    EXPECT_LT(found.statistic, test::kTwoTokenBound) << tree;
  }
}

INSTANTIATE_TEST_SUITE_P(Drafters, ByDepth, testing::Values("medusa(path=toy)", "pard(path=toy,depth=3)"),
                         [](const auto& info) { return info.param.substr(0, info.param.find('(')); });

}  // namespace
}  // namespace specmoe
