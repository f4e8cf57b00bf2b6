#include "core/enumerate.h"

#include <gtest/gtest.h>

#include <map>

#include "core/decide.h"
#include "core/oracle_bounds.h"
#include "tests/support/markov_models.h"

namespace specmoe::testing {
namespace {

using Again = Enumerator<double>::Again;

TEST(Enumerator, VisitsEveryBranchOnceWithItsWeight) {
  Enumerator<double> uniforms;
  std::map<std::pair<bool, bool>, double> weights;
  do {
    const bool first = uniforms.at({0, Purpose::kAccept, 0}).less(0.3);
    const bool second = uniforms.at({1, Purpose::kAccept, 0}).less(1.0, 4.0);
    weights[{first, second}] += uniforms.weight();
  } while (uniforms.next() != Again::kNever);
  ASSERT_EQ(weights.size(), 4U);
  EXPECT_NEAR((weights[{true, true}]), 0.3 * 0.25, 1e-15);
  EXPECT_NEAR((weights[{false, false}]), 0.7 * 0.75, 1e-15);
}

TEST(Enumerator, AskingOneUniformTwiceMeetsANarrowedInterval) {
  Enumerator<double> uniforms;
  int outcomes = 0;
  do {
    const Uniform<double> u = uniforms.at({0, Purpose::kAccept, 0});
    if (u.less(0.5)) {
      EXPECT_TRUE(u.less(0.5));
      EXPECT_TRUE(u.less(0.8));
      EXPECT_FALSE(u.less(0.0));
    } else {
      EXPECT_FALSE(u.less(0.25));
    }
    ++outcomes;
  } while (uniforms.next() != Again::kNever);
  EXPECT_EQ(outcomes, 2);
}

TEST(Enumerator, StepsHaveUniformsOfTheirOwn) {
  Enumerator<double> uniforms;
  double both = 0.0;
  do {
    uniforms.begin_step(0);
    const bool first = uniforms.at({0, Purpose::kAccept, 0}).less(0.5);
    uniforms.begin_step(1);
    const bool second = uniforms.at({0, Purpose::kAccept, 0}).less(0.5);
    if (first && second) both += uniforms.weight();
  } while (uniforms.next() != Again::kNever);
  EXPECT_DOUBLE_EQ(both, 0.25);
}

TEST(Enumerator, ResumesFromTheMark) {
  Enumerator<double> uniforms;
  double total = 0.0;
  int drafts = 0;
  bool drafted = false;
  for (Again again = Again::kFromStart; again != Again::kNever; again = uniforms.next()) {
    if (again == Again::kFromStart) {
      drafted = uniforms.at({0, Purpose::kDraft, 0}).less(0.4);
      uniforms.mark();
      ++drafts;
    }
    uniforms.at({0, Purpose::kAccept, 0}).less(drafted ? 0.5 : 0.25);
    total += uniforms.weight();
  }
  EXPECT_EQ(drafts, 2);
  EXPECT_DOUBLE_EQ(total, 1.0);
}

TEST(Enumerator, IsExactInFractions) {
  Enumerator<Rational> uniforms;
  Rational below(0);
  do {
    const bool third = uniforms.at({0, Purpose::kAccept, 0}).less(Rational(1), Rational(3));
    const bool seventh = uniforms.at({1, Purpose::kAccept, 0}).less(Rational(1), Rational(7));
    if (third && seventh) below += uniforms.weight();
  } while (uniforms.next() != Enumerator<Rational>::Again::kNever);
  EXPECT_EQ(below, Rational(1) / Rational(21)) << below;
}

TEST(RationalNumbers, FollowTheRulesOfFractions) {
  EXPECT_EQ(Rational(1) / Rational(3) + Rational(1) / Rational(6), Rational(1) / Rational(2));
  EXPECT_EQ(Rational(0.125) * Rational(8), Rational(1));
  EXPECT_LT(Rational(1) / Rational(3), Rational(0.34));
  EXPECT_EQ(abs(Rational(-2)), Rational(2));
  EXPECT_EQ((Rational(2) / Rational(4)).to_string(), "1/2");
  EXPECT_DOUBLE_EQ(static_cast<double>(Rational(1) / Rational(3)), 1.0 / 3.0);
  EXPECT_THROW(Rational(1) / Rational(0), Error);
  EXPECT_THROW(Rational(std::numeric_limits<double>::infinity()), Error);
}

TEST(Draws, BlocksAndRoundingKeepTheLaw) {
  // 600 tokens: three blocks, the second without mass.
  std::vector<double> row(600, 0.0);
  row[3] = 0.25;
  row[255] = 0.125;
  row[512] = 0.5;
  row[599] = 0.125;
  Enumerator<double> uniforms;
  std::map<TokenId, double> law;
  do {
    const ProbRow<double> whole{std::span<const double>(row)};
    const TokenId token = draw_from_row(whole, Taken{}, uniforms.at({0, Purpose::kNext, 0}));
    law[token] += uniforms.weight();
  } while (uniforms.next() != Again::kNever);
  ASSERT_EQ(law.size(), 4U);
  for (const auto& [token, probability] : law) EXPECT_NEAR(probability, row[token], 1e-15) << token;
}

TEST(OracleBounds, MatchClosedForms) {
  const ProofModels& golden = builtin_proof_models()[0];
  const std::vector<double> p = {.5, .35, .15};
  const std::vector<double> q = {.2, .25, .55};
  for (int k = 1; k <= 3; ++k) {
    const auto tree = tree_policies().create("expansion(" + std::to_string(k) + ")");
    EXPECT_NEAR(oracle_bounds(DraftLaw::kIid, *tree, golden).first_token, optimal_iid_acceptance(p, q, k), 1e-12);
  }
  EXPECT_NEAR(optimal_iid_acceptance(p, q, 1), 0.6, 1e-12);
  const double full_information[] = {1.600000, 2.105000, 2.585250, 2.998431};
  for (int gamma = 1; gamma <= 4; ++gamma) {
    const auto chain = tree_policies().create("chain(" + std::to_string(gamma) + ")");
    EXPECT_NEAR(oracle_bounds(DraftLaw::kIid, *chain, golden).expected_tokens, full_information[gamma - 1], 1e-6);
  }
}

/// Greedy-OT attains the transport bound for the law it was made for, and k-SEQ its guaranteed share of it.
TEST(OracleBounds, BoundEveryLosslessPolicy) {
  for (const std::string& name : acceptance_policies().names()) {
    const auto policy = acceptance_policies().create(name);
    if (!policy->samples()) continue;
    for (DraftLaw law : kAllLaws) {
      if (!policy->lossless_laws().contains(law)) continue;
      for (const char* tree : {"chain(3)", "expansion(2)", "expansion(2,1)", "expansion(2,2)"}) {
        const auto topology = tree_policies().create(tree);
        if (topology->branches() && !policy->judges_trees()) continue;
        for (const ProofModels& models : builtin_proof_models()) {
          const OracleBounds bounds = oracle_bounds(law, *topology, models);
          const double tokens = prove(*policy, law, *topology, models).expected_tokens;
          EXPECT_LE(tokens, bounds.expected_tokens + 1e-9) << name << " " << law_name(law) << " " << tree;
        }
      }
    }
  }
  for (const ProofModels& models : all_proof_models()) {
    const auto tree = tree_policies().create("expansion(2)");
    const double best = oracle_bounds(DraftLaw::kTopPlusSampled, *tree, models).first_token;
    EXPECT_NEAR(
        prove(*acceptance_policies().create("greedy_ot"), DraftLaw::kTopPlusSampled, *tree, models).expected_tokens,
        1.0 + best, 1e-9)
        << models.name;
    const double best_iid = oracle_bounds(DraftLaw::kIid, *tree, models).first_token;
    EXPECT_GE(prove(*acceptance_policies().create("k_seq"), DraftLaw::kIid, *tree, models).expected_tokens,
              1.0 + 0.75 * best_iid - 1e-9)
        << models.name;
  }
}

TEST(ProverInput, IsRefusedInOneLine) {
  const auto token = acceptance_policies().create("token");
  const auto chain = tree_policies().create("chain(2)");
  const auto tree = tree_policies().create("expansion(2)");
  const ProofModels golden = builtin_proof_models()[0];
  const auto refused = [&](ProofModels models, const std::string& wanted) {
    try {
      prove(*token, DraftLaw::kIid, *chain, models);
      ADD_FAILURE() << "accepted: " << wanted;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(wanted), std::string::npos) << error.what();
    }
  };
  ProofModels models = golden;
  models.target.weights[4] = -0.1;
  refused(models, "row 1");
  models = golden;
  models.target.weights[4] = std::numeric_limits<double>::quiet_NaN();
  refused(models, "nan");
  models = golden;
  models.drafts[0] = markov({{1, 1}, {1, 1}});
  refused(models, "vocabulary");
  models = golden;
  models.drafts.clear();
  refused(models, "draft model");
  models = golden;
  models.start = {7};
  refused(models, "outside the vocabulary");
  EXPECT_THROW(prove(*token, DraftLaw::kIid, *tree, golden), Error);
}

}  // namespace
}  // namespace specmoe::testing
