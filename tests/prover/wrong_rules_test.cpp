#include <gtest/gtest.h>

#include "core/prover.h"
#include "tests/support/wrong_rules.h"

namespace specmoe::testing {
namespace {

class WrongRules : public ::testing::TestWithParam<int> {
 protected:
  const WrongRule& rule() const { return wrong_rules()[GetParam()]; }
  ProofReport proof() const {
    ProofOptions options;
    options.draw = rule().draw;
    options.rounds = rule().rounds;
    return prove(*rule().policy, rule().law, *tree_policies().create(rule().tree), builtin_proof_models()[0], options);
  }
};

TEST_P(WrongRules, IsFlaggedWithACounterExample) {
  const ProofReport report = proof();
  EXPECT_FALSE(report.lossless) << rule().name << " from " << rule().seen_in;
  EXPECT_GT(report.tvd, 1e-9);
  ASSERT_TRUE(report.counter_example.has_value());
  const CounterExample& example = *report.counter_example;
  ASSERT_FALSE(example.text.empty());
  EXPECT_GT(example.actual, example.expected);
  EXPECT_FALSE(example.tree.empty());
  EXPECT_FALSE(example.uniforms.empty());
  RecordProperty("tvd", std::to_string(report.tvd));
}

INSTANTIATE_TEST_SUITE_P(Zoo, WrongRules, ::testing::Range(0, static_cast<int>(wrong_rules().size())),
                         [](const auto& info) { return wrong_rules()[info.param].name; });

/// Distances that an independent prototype found for the same rules on the same toy.
TEST(WrongRulesKnownDistances, MatchToSixDecimals) {
  const auto distance = [](const std::string& name, const std::string& tree) {
    for (const WrongRule& rule : wrong_rules()) {
      if (rule.name != name) continue;
      ProofOptions options;
      options.draw = rule.draw;
      return prove(*rule.policy, rule.law, *tree_policies().create(tree), builtin_proof_models()[0], options);
    }
    throw Error("no such rule: " + name);
  };
  EXPECT_NEAR(distance("uncapped_last_step", "chain(1)").tvd, 0.0, 1e-12);
  EXPECT_NEAR(distance("uncapped_last_step", "chain(2)").tvd, 0.060, 1e-6);
  EXPECT_NEAR(distance("uncapped_last_step", "chain(3)").tvd, 0.1022, 1e-6);
  EXPECT_NEAR(distance("uncapped_last_step", "chain(4)").tvd, 0.087846, 1e-6);
  EXPECT_NEAR(distance("uncapped_last_step", "chain(3)").expected_tokens, 2.574750, 1e-6);
  EXPECT_NEAR(distance("deduplicated_siblings", "expansion(2)").tvd, 0.055, 1e-6);
  EXPECT_NEAR(distance("deduplicated_siblings", "expansion(3)").tvd, 0.085, 6e-4);
  EXPECT_NEAR(distance("fixed_row_on_top_k", "expansion(2)").tvd, 0.50, 1e-6);
  EXPECT_NEAR(distance("fixed_row_on_top_k", "expansion(2,2)").tvd, 0.66, 5e-3);
}

}  // namespace
}  // namespace specmoe::testing
