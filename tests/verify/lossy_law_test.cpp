#include <gtest/gtest.h>

#include <cmath>

#include "core/prover.h"

namespace specmoe {
namespace {

constexpr double kP[] = {.5, .35, .15};
constexpr double kQ[] = {.2, .25, .55};

/// The first token that a policy emits on the golden toy after one drafted token.
std::vector<double> emitted_law(const std::string& policy) {
  ProofOptions options;
  options.length = 1;
  return prove(*acceptance_policies().create(policy), DraftLaw::kIid, *tree_policies().create("chain(1)"),
               builtin_proof_models()[0], options)
      .emitted;
}

double distance_to_target(const std::vector<double>& law) {
  double sum = 0.0;
  for (int x = 0; x < 3; ++x) sum += std::abs(law[x] - kP[x]);
  return sum / 2;
}

void expect_law(const std::string& policy, const std::vector<double>& expected) {
  const std::vector<double> law = emitted_law(policy);
  for (int x = 0; x < 3; ++x) EXPECT_NEAR(law[x], expected[x], 1e-6) << policy << ", token " << x;
}

TEST(LossyLaws, LenientMatchesItsClosedForm) {
  for (double l : {1.0, 0.8, 0.5}) {
    std::vector<double> law(3);
    double rest = 1.0;
    double mass = 0.0;
    for (int x = 0; x < 3; ++x) {
      law[x] = std::min(kQ[x], kP[x] / l);
      rest -= law[x];
      mass += std::max(kP[x] - l * kQ[x], 0.0);
    }
    for (int x = 0; x < 3; ++x) law[x] += rest * std::max(kP[x] - l * kQ[x], 0.0) / mass;
    expect_law("lenient(lenience=" + std::to_string(l) + ")", law);
  }
  EXPECT_NEAR(distance_to_target(emitted_law("lenient(lenience=0.8)")), 0.0375, 2e-2);
}

TEST(LossyLaws, CascadeIsTheDraftWhereItDoesNotDefer) {
  // max q = .55 >= max p = .5: the draft is confident, and is kept.
  expect_law("cascade(alpha=0)", {.2, .25, .55});
  // Nothing is deferred less than everything: a strongly negative alpha always defers.
  expect_law("cascade(alpha=-10)", {.5, .35, .15});
}

TEST(LossyLaws, MentoredKeepsItsDivergence) {
  for (double budget : {0.02, 0.1}) {
    const std::vector<double> law = emitted_law("mentored(divergence=" + std::to_string(budget) + ")");
    double divergence = 0.0;
    double sum = 0.0;
    for (int x = 0; x < 3; ++x) {
      divergence += kP[x] * std::log(kP[x] / law[x]);
      sum += law[x];
    }
    EXPECT_NEAR(sum, 1.0, 1e-9);
    EXPECT_NEAR(divergence, budget, 1e-4);
  }
  // KL(p || q) = 0.381: with more than that allowed, the draft itself is emitted.
  expect_law("mentored(divergence=0.5)", {.2, .25, .55});
}

TEST(LossyLaws, TypicalAndRelaxedFollowTheirThresholds) {
  // H(p) = 0.9985, exp(-H) = .368: with delta .9 the threshold is min(.6, .3316), so tokens 0 and 1 pass by the
  // entropy.
  const std::vector<double> typical = emitted_law("typical(epsilon=0.6,delta=0.9)");
  const double next0 = .5 / .85;
  EXPECT_NEAR(typical[0], .2 + .55 * next0, 1e-9);
  EXPECT_NEAR(typical[1], .25 + .55 * (1 - next0), 1e-9);
  EXPECT_NEAR(typical[2], 0.0, 1e-12);
  // By epsilon: the threshold is .3, which tokens 0 and 1 pass.
  expect_law("typical(epsilon=0.3,delta=0.99)", {.2 + .55 * .5 / .85, .25 + .55 * .35 / .85, 0});
  expect_law("relaxed(top=1,delta=0.6)", {1, 0, 0});
  expect_law("relaxed(top=2,delta=0.2)", {.75, .25, 0});
  expect_law("relaxed(top=2,delta=0.1)", {1, 0, 0});
}

TEST(LossyLaws, BlocksPassOrFailByTheirThreshold) {
  expect_law("kl_block(threshold=0)", {.5, .35, .15});
  expect_law("kl_block(threshold=10)", {.2, .25, .55});
  // ln .35 = -1.05, ln .15 = -1.90: token 2 is not likely enough, and is replaced by a draw from the target.
  expect_law("log_likelihood(least=-1.5)", {.2 + .55 * .5, .25 + .55 * .35, .55 * .15});
  expect_law("log_likelihood(least=-10)", {.2, .25, .55});
}

TEST(LossyLaws, StrictEndsAreTheLosslessPolicy) {
  const auto tree = tree_policies().create("chain(3)");
  for (const auto& [lossy, lossless] :
       {std::pair("lenient(lenience=1)", "token"), std::pair("mentored(divergence=0)", "token"),
        std::pair("cascade(alpha=-10)", "token")}) {
    const auto a = prove(*acceptance_policies().create(lossy), DraftLaw::kIid, *tree, builtin_proof_models()[0]);
    const auto b = prove(*acceptance_policies().create(lossless), DraftLaw::kIid, *tree, builtin_proof_models()[0]);
    EXPECT_TRUE(a.lossless) << lossy;
    EXPECT_EQ(a.expected_tokens, b.expected_tokens) << lossy;
    EXPECT_EQ(a.emitted, b.emitted) << lossy;
  }
}

TEST(LossyLaws, KnobsAreMonotone) {
  const auto tree = tree_policies().create("chain(3)");
  const auto check = [&](const std::vector<std::string>& looser) {
    double tokens = 0.0;
    double distance = -1.0;
    for (const std::string& spec : looser) {
      const auto report = prove(*acceptance_policies().create(spec), DraftLaw::kIid, *tree, builtin_proof_models()[0]);
      EXPECT_GE(report.expected_tokens, tokens - 1e-9) << spec;
      EXPECT_GE(report.tvd, distance - 1e-9) << spec;
      tokens = report.expected_tokens;
      distance = report.tvd;
    }
  };
  check({"lenient(lenience=1)", "lenient(lenience=0.9)", "lenient(lenience=0.7)", "lenient(lenience=0.4)"});
  check(
      {"mentored(divergence=0)", "mentored(divergence=0.01)", "mentored(divergence=0.05)", "mentored(divergence=0.2)"});
  check({"cascade(alpha=-10)", "cascade(alpha=0)", "cascade(alpha=1)"});
}

}  // namespace
}  // namespace specmoe
