#include <gtest/gtest.h>

#include "core/prover.h"

namespace specmoe {
namespace {

struct Golden {
  const char* policy;
  DraftLaw law;
  const char* tree;
  double expected_tokens;
};

constexpr auto kDeterministic = DraftLaw::kDeterministic;
constexpr auto kIid = DraftLaw::kIid;
constexpr auto kSwor = DraftLaw::kWithoutReplacement;
constexpr auto kTopPlus = DraftLaw::kTopPlusSampled;
constexpr auto kMulti = DraftLaw::kMultiDrafter;

/// Tokens per target pass on the golden toy from state 0, enumerated by an independent prototype.
const Golden kGolden[] = {
    {"token", kIid, "chain(1)", 1.600000},
    {"token", kIid, "chain(2)", 2.000000},
    {"token", kIid, "chain(3)", 2.268500},
    {"token", kIid, "chain(4)", 2.448700},
    {"block", kIid, "chain(1)", 1.600000},
    {"block", kIid, "chain(2)", 2.045000},
    {"block", kIid, "chain(3)", 2.415250},
    {"block", kIid, "chain(4)", 2.726019},
    {"naive", kDeterministic, "expansion(2)", 1.500000},
    {"naive", kDeterministic, "expansion(3)", 2.000000},
    {"naive", kDeterministic, "expansion(2,1)", 1.590000},
    {"naive", kDeterministic, "expansion(2,2)", 1.842500},
    {"naive", kDeterministic, "expansion(3,2)", 2.592500},
    {"naive", kIid, "expansion(2)", 1.452750},
    {"naive", kIid, "expansion(3)", 1.582675},
    {"naive", kIid, "expansion(2,1)", 1.604141},
    {"naive", kIid, "expansion(2,2)", 1.694905},
    {"naive", kSwor, "expansion(2)", 1.602500},
    {"naive", kSwor, "expansion(3)", 2.000000},
    {"naive", kSwor, "expansion(2,1)", 1.780889},
    {"naive", kSwor, "expansion(2,2)", 1.983395},
    {"naive", kSwor, "expansion(3,2)", 2.628909},
    {"naive", kTopPlus, "expansion(2,2)", 1.905194},
    {"naive", kMulti, "expansion(2,2)", 1.921883},
    {"multi_step", kIid, "expansion(2)", 1.780000},
    {"multi_step", kIid, "expansion(3)", 1.824000},
    {"multi_step", kIid, "expansion(2,1)", 2.298000},
    {"multi_step", kIid, "expansion(2,2)", 2.426400},
    {"multi_step", kMulti, "expansion(2,2)", 2.750500},
    {"multi_step", kSwor, "expansion(2)", 1.877778},
    {"multi_step", kSwor, "expansion(3)", 2.000000},
    {"multi_step", kSwor, "expansion(2,1)", 2.454444},
    {"multi_step", kSwor, "expansion(2,2)", 2.703701},
    {"multi_step", kSwor, "expansion(3,2)", 2.933207},
    {"k_seq", kIid, "expansion(2)", 1.791355},
    {"k_seq", kIid, "expansion(3)", 1.858519},
    {"k_seq", kIid, "expansion(2,1)", 2.316168},
    {"k_seq", kIid, "expansion(2,2)", 2.461745},
    {"traversal", kDeterministic, "expansion(2,2)", 1.842500},
    {"traversal", kIid, "expansion(2)", 1.780000},
    {"traversal", kIid, "expansion(3)", 1.824000},
    {"traversal", kIid, "expansion(2,1)", 2.343000},
    {"traversal", kIid, "expansion(2,2)", 2.451150},
    {"traversal", kIid, "chain(3)", 2.415250},
    {"traversal", kMulti, "expansion(2,2)", 2.768500},
    {"traversal", kSwor, "expansion(2)", 1.877778},
    {"traversal", kSwor, "expansion(3)", 2.000000},
    {"traversal", kSwor, "expansion(2,1)", 2.529444},
    {"traversal", kSwor, "expansion(2,2)", 2.707110},
    {"traversal", kSwor, "expansion(3,2)", 2.936616},
    {"greedy_ot", kTopPlus, "expansion(2)", 1.944444},
    {"greedy_ot", kTopPlus, "expansion(3)", 2.000000},
    {"greedy_ot", kTopPlus, "expansion(2,1)", 2.561111},
    {"greedy_ot", kTopPlus, "expansion(2,2)", 2.864198},
    {"greedy_ot", kTopPlus, "expansion(3,2)", 2.972222},
    {"greedy_ot", kIid, "expansion(2,2)", 2.034053},
    {"greedy_ot", kSwor, "expansion(2,2)", 2.754139},
};

TEST(GoldenVectors, TokensPerPassToSixDecimals) {
  for (const Golden& golden : kGolden) {
    const ProofReport report = prove(*acceptance_policies().create(golden.policy), golden.law,
                                     *tree_policies().create(golden.tree), builtin_proof_models()[0]);
    EXPECT_TRUE(report.lossless) << golden.policy << " " << law_name(golden.law) << " " << golden.tree << ": "
                                 << report.tvd;
    EXPECT_NEAR(report.expected_tokens, golden.expected_tokens, 1e-6)
        << golden.policy << " " << law_name(golden.law) << " " << golden.tree;
  }
}

/// Leviathan et al.'s small example in Sun et al. 2024: p = (1/3, 2/3), q = (2/3, 1/3) at every position, gamma 2.
TEST(GoldenVectors, BlockPaperExample) {
  const ProofModels models = {"paper", markov({{1, 2}, {1, 2}}), {markov({{2, 1}, {2, 1}})}, {0}};
  const auto chain = tree_policies().create("chain(2)");
  ProofOptions exact;
  exact.exact = true;
  EXPECT_NEAR(prove(*acceptance_policies().create("token"), kIid, *chain, models, exact).expected_tokens, 1 + 10.0 / 9,
              1e-12);
  EXPECT_NEAR(prove(*acceptance_policies().create("block"), kIid, *chain, models, exact).expected_tokens, 1 + 11.0 / 9,
              1e-12);
}

/// Rows with zeros and a point mass, two rounds, the law of three tokens.
TEST(GoldenVectors, TwoRoundsOverZeros) {
  ProofOptions options;
  options.rounds = 2;
  options.length = 3;
  const auto chain = tree_policies().create("chain(2)");
  const ProofReport report =
      prove(*acceptance_policies().create("token"), kIid, *chain, builtin_proof_models()[1], options);
  EXPECT_TRUE(report.lossless) << report.tvd;
  EXPECT_NEAR(report.expected_tokens, 2.1, 1e-12);
}

}  // namespace
}  // namespace specmoe
