#include "core/speedup_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/check.h"

namespace specmoe {
namespace {

// A machine that keeps to the model: a byte of weights takes 1 ns, an operation 0.1, a level of a draft 500 and a node
// 100, the rest of a step 50.
constexpr double kCorrelation = 0.4;

ModelInfo mixture() {
  ModelInfo info;
  info.layers = info.moe_layers = 2;
  info.experts = 8;
  info.experts_per_token = 2;
  info.expert_bytes = 1000;
  info.active_weight_bytes = 3000 + 2 * 2 * 1000;
  info.active_parameters = 3500;
  return info;
}

double pass_ns(double rows) {
  const ModelInfo info = mixture();
  const PassWork work = pass_work(info, rows, 0, expected_experts(8, 2, rows, kCorrelation));
  return work.bytes + 0.1 * work.operations;
}

/// Of `steps` steps of `sequences` texts that draft so and emit tau.
Counts counts_of(int nodes, int levels, double tau, int sequences = 1) {
  constexpr std::int64_t kSteps = 1000000;
  const double rows = sequences * (nodes + 1.0);
  Counts counts;
  counts.steps = kSteps;
  counts.drafted = kSteps * nodes;
  counts.drafted_at.assign(static_cast<std::size_t>(levels), kSteps);
  counts.emitted = static_cast<std::int64_t>(std::llround(tau * kSteps));
  counts.pass_rows = static_cast<std::int64_t>(std::llround(rows * kSteps));
  const double distinct = expected_experts(8, 2, rows, kCorrelation);
  counts.unique_experts.assign(2, static_cast<std::int64_t>(std::llround(distinct * kSteps)));
  counts.times.verify_ns = static_cast<std::int64_t>(std::llround(pass_ns(rows) / sequences * kSteps));
  counts.times.draft_ns = kSteps * (500 * levels + 100 * nodes);
  counts.times.judge_ns = nodes == 0 ? 0 : kSteps * 20;
  counts.times.rest_ns = nodes == 0 ? 0 : kSteps * 30;
  return counts;
}

TEST(SpeedupModel, PredictsATreeThatWasNotRun) {
  const std::vector<Counts> probes = {counts_of(1, 1, 1.7), counts_of(8, 8, 3.9), counts_of(4, 1, 1.9)};
  const SpeedupModel model(mixture(), counts_of(0, 0, 1), probes);
  EXPECT_NEAR(model.routing_correlation(), kCorrelation, 1e-3);
  EXPECT_NEAR(model.plain_seconds(), 1e-9 * pass_ns(1), 1e-12);
  EXPECT_NEAR(model.pass_seconds(5) / (1e-9 * pass_ns(6)), 1, 1e-3);
  EXPECT_NEAR(model.cost_ratio(5), pass_ns(6) / pass_ns(1), 1e-3);
  EXPECT_NEAR(model.draft_seconds(5, 3), 1e-9 * (500 * 3 + 100 * 5), 1e-12);
  const Prediction expected = model.predict(2.5, 5, 3);
  EXPECT_EQ(expected.tau, 2.5);
  EXPECT_EQ(expected.cost, model.cost_ratio(5));
  EXPECT_NEAR(expected.speedup, 2.5 * pass_ns(1) / (pass_ns(6) + 500 * 3 + 100 * 5 + 50), 1e-3);
}

StepRecord step_of(int drafted, int accepted, int emitted) {
  StepRecord step;
  step.drafted = drafted;
  step.accepted = accepted;
  step.emitted = emitted;
  return step;
}

TEST(SpeedupModel, PredictsKnownStepsByTheTimeOfEach) {
  Counts plain = counts_of(0, 0, 1);
  plain.times.verify_ns /= 2;
  const std::vector<Counts> probes = {counts_of(1, 1, 1.7), counts_of(8, 8, 3.9), counts_of(4, 1, 1.9)};
  const SpeedupModel model(mixture(), plain, probes);
  std::vector<RequestRecord> texts(3);
  texts[0].steps = {step_of(8, 3, 4), step_of(0, 0, 1)};  // a step without a draft is a plain one
  texts[2].steps = {step_of(3, 1, 2)};
  const Prediction expected = model.predict(texts, 700e-9);
  const double passes = (pass_ns(9) + pass_ns(1) / 2 + pass_ns(4)) / 3;
  EXPECT_DOUBLE_EQ(expected.tau, 7.0 / 3);
  EXPECT_NEAR(expected.cost, passes / (pass_ns(1) / 2), 5e-3);
  EXPECT_NEAR(expected.speedup, expected.tau * pass_ns(1) / 2 / (passes + 700 + 50), 1e-3);
  EXPECT_THROW(model.predict(std::span(texts).subspan(1, 1), 0), Error);
}

TEST(SpeedupModel, ABatchSharesAPass) {
  const std::vector<Counts> probes = {counts_of(1, 1, 1.7, 4), counts_of(8, 8, 3.9, 4), counts_of(4, 1, 1.9, 4)};
  const SpeedupModel model(mixture(), counts_of(0, 0, 1, 4), probes);
  EXPECT_NEAR(model.pass_seconds(2) / (1e-9 * pass_ns(12) / 4), 1, 1e-3);
}

TEST(SpeedupModel, PlainStepsMayHaveKernelsOfTheirOwn) {
  Counts plain = counts_of(0, 0, 1);
  plain.times.verify_ns /= 2;
  const std::vector<Counts> probes = {counts_of(1, 1, 1.7), counts_of(8, 8, 3.9), counts_of(4, 1, 1.9)};
  const SpeedupModel model(mixture(), plain, probes);
  EXPECT_NEAR(model.pass_seconds(5) / (1e-9 * pass_ns(6)), 1, 1e-3);
  EXPECT_NEAR(model.cost_ratio(5), 2 * pass_ns(6) / pass_ns(1), 2e-3);
}

TEST(SpeedupModel, ADenseTargetHasNoCorrelation) {
  ModelInfo info = mixture();
  info.experts = info.moe_layers = info.experts_per_token = 0;
  const std::vector<Counts> probes = {counts_of(1, 1, 1.7), counts_of(8, 8, 3.9)};
  const SpeedupModel model(info, counts_of(0, 0, 1), probes);
  EXPECT_TRUE(std::isnan(model.routing_correlation()));
  EXPECT_GT(model.pass_seconds(8), model.pass_seconds(0));
}

TEST(SpeedupModel, WantsProbesWithSteps) {
  EXPECT_THROW(SpeedupModel(mixture(), counts_of(0, 0, 1), {}), Error);
  const Counts none;
  EXPECT_THROW(SpeedupModel(mixture(), counts_of(0, 0, 1), {&none, 1}), Error);
}

TEST(ChainTokens, ReplaysShorterAndLongerChains) {
  // Proposed: yes yes no, yes yes yes and one more, no; the last step drafts nothing, and a stop ends it.
  RequestRecord text;
  text.steps = {step_of(3, 2, 3), step_of(3, 3, 4), step_of(0, 0, 1), step_of(3, 1, 1)};
  const auto tokens = [&](int gamma) { return chain_tokens({&text, 1}, 3, gamma); };
  // 1: yes +yes | no | yes +yes | yes +yes | no | yes: 9 tokens in 6 steps.
  EXPECT_DOUBLE_EQ(tokens(1), 9.0 / 6);
  // 2: yes yes +no | yes yes +yes | yes +no | yes: 4.
  EXPECT_DOUBLE_EQ(tokens(2), 9.0 / 4);
  // 3: the same as was written, but that the extra token of the second step was followed by none.
  EXPECT_DOUBLE_EQ(tokens(3), 9.0 / 4);
  // 4: yes yes +no | yes yes yes yes +no | yes: 3.
  EXPECT_DOUBLE_EQ(tokens(4), 9.0 / 3);
}

TEST(FitShares, NeverGivesAShareBelowZero) {
  const std::vector<ShareSample> exact = {{1, 2, 8}, {3, 1, 9}, {2, 2, 10}};  // 2 x + 3 y
  const auto [a, b] = fit_shares(exact);
  EXPECT_NEAR(a, 2, 1e-12);
  EXPECT_NEAR(b, 3, 1e-12);
  const std::vector<ShareSample> falling = {{1, 1, 3}, {1, 2, 2}, {1, 3, 1}};
  const auto [c, d] = fit_shares(falling);
  EXPECT_GE(c, 0);
  EXPECT_GE(d, 0);
  const std::vector<ShareSample> alike = {{1, 1, 2}, {2, 2, 4}};  // nothing tells x from y
  const auto [e, f] = fit_shares(alike);
  EXPECT_NEAR(e + f, 2, 1e-12);
  const std::vector<ShareSample> nothing = {{0, 0, 1}};
  EXPECT_EQ(fit_shares(nothing), std::pair(0.0, 0.0));
}

}  // namespace
}  // namespace specmoe
