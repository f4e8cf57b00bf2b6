#include "draft/depth_proposals.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/engine.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"

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

std::vector<double> probabilities(const ToyOptions& toy, const std::vector<TokenId>& text) {
  std::vector<double> row;
  double sum = 0;
  for (const float logit : test::toy_logits(toy, text)) sum += row.emplace_back(std::exp(logit));
  for (double& value : row) value /= sum;
  return row;
}

/// The joint law of two tokens, by chi-square, where siblings and cousins are drawn from rows that they share.
TEST_P(ByDepth, KeepsTheTargetsDistribution) {
  constexpr int kVocab = 5;
  constexpr int kTexts = 20'000;
  const ToyOptions target{.vocab = kVocab, .order = 2, .sharpness = 1.0};
  const std::vector<TokenId> prompt = {1, 2};
  std::vector<Request> requests(kTexts);
  for (int i = 0; i < kTexts; ++i) {
    requests[i].prompt = prompt;
    requests[i].max_new_tokens = 4;  // drafts reach beyond what is compared
    requests[i].sampling = {.temperature = 1.0, .seed = 3, .sequence = static_cast<std::uint64_t>(i)};
  }
  const std::vector<double> first = probabilities(target, prompt);
  for (const char* tree : {"expansion(2,2)", "expansion(2,2,law=without_replacement)", "static_ranks(preset=medusa)"}) {
    Engine engine(make_toy_model(target), {.drafter = GetParam(), .tree = tree, .acceptance = "multi_step"},
                  [&](const std::string&, const std::string&) { return make_toy_model(target); });
    ASSERT_TRUE(engine.lossless()) << tree;
    std::vector<double> counted(kVocab * kVocab);
    int accepted = 0;
    for (const RequestRecord& record : engine.generate(requests, 32)) {
      ++counted[record.tokens[0] * kVocab + record.tokens[1]];
      accepted += record.steps[0].accepted;
    }
    EXPECT_GT(accepted, kTexts / 10) << tree;
    double statistic = 0;
    for (TokenId x = 0; x < kVocab; ++x) {
      const std::vector<double> second = probabilities(target, {1, 2, x});
      for (TokenId y = 0; y < kVocab; ++y) {
        const double expected = kTexts * first[x] * second[y];
        statistic += (counted[x * kVocab + y] - expected) * (counted[x * kVocab + y] - expected) / expected;
      }
    }
    EXPECT_LT(statistic, 51.18) << tree;  // 24 degrees of freedom, p = 0.001
  }
}

INSTANTIATE_TEST_SUITE_P(Drafters, ByDepth, testing::Values("medusa(path=toy)", "pard(path=toy,depth=3)"),
                         [](const auto& info) { return info.param.substr(0, info.param.find('(')); });

}  // namespace
}  // namespace specmoe
