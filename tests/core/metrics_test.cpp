#include "core/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/check.h"

namespace specmoe {
namespace {

StepRecord chain_step(int drafted, int accepted) {
  StepRecord step;
  step.drafted = drafted;
  step.drafted_depth = drafted;
  step.accepted = accepted;
  step.rejected = accepted < drafted ? 1 : 0;
  step.unjudged = drafted - accepted - step.rejected;
  step.emitted = accepted + 1;
  step.judged_depth = accepted + step.rejected;
  step.pass_rows = drafted + 1;
  step.times = {.draft_ns = 100, .verify_ns = 800, .judge_ns = 50, .rest_ns = 50};
  return step;
}

RequestRecord two_steps() {
  RequestRecord request;
  request.steps = {chain_step(3, 3), chain_step(3, 1)};
  request.moe_layers = 2;
  request.unique_experts = {4, 6, 5, 3};
  return request;
}

TEST(Metrics, FollowTheirDefinitions) {
  Counts counts;
  counts.add(two_steps());
  counts.check_identities();
  const Metrics metrics = derive(counts, 2);
  EXPECT_DOUBLE_EQ(metrics.tau, 6.0 / 2);
  EXPECT_DOUBLE_EQ(metrics.tokens_per_s, 6.0 / 2000e-9);
  EXPECT_DOUBLE_EQ(metrics.acceptance_rate, 4.0 / 5);
  EXPECT_DOUBLE_EQ(metrics.draft_efficiency, 4.0 / 6);
  ASSERT_EQ(metrics.acceptance_per_position.size(), 3U);
  EXPECT_DOUBLE_EQ(metrics.acceptance_per_position[0], 1.0);
  EXPECT_DOUBLE_EQ(metrics.acceptance_per_position[1], 0.5);
  EXPECT_DOUBLE_EQ(metrics.acceptance_per_position[2], 1.0) << "position 2 was judged once";
  EXPECT_DOUBLE_EQ(metrics.reached_per_position[2], 0.5);
  EXPECT_DOUBLE_EQ(metrics.unique_experts, 4.5);
  EXPECT_DOUBLE_EQ(metrics.unique_experts_per_layer[1], 4.5);
  EXPECT_DOUBLE_EQ(metrics.union_ratio, 2.25);
  EXPECT_DOUBLE_EQ(metrics.draft_share, 0.1);
  EXPECT_DOUBLE_EQ(metrics.verify_share, 0.8);
}

TEST(Metrics, SumsOfCountsEqualCountsOfSums) {
  Counts both;
  both.add(two_steps());
  both.add(two_steps());
  Counts one;
  one.add(two_steps());
  Counts merged = one;
  merged.add(one);
  EXPECT_EQ(merged.accepted_at, both.accepted_at);
  EXPECT_EQ(merged.unique_experts, both.unique_experts);
  EXPECT_EQ(merged.times.total_ns(), both.times.total_ns());
  merged.check_identities();
}

TEST(Metrics, BrokenAccountsAreCaught) {
  for (auto damage :
       {+[](RequestRecord& r) { ++r.steps[0].accepted; }, +[](RequestRecord& r) { ++r.steps[0].drafted; },
        +[](RequestRecord& r) { ++r.steps[1].emitted; }, +[](RequestRecord& r) { ++r.steps[0].truncated; },
        +[](RequestRecord& r) { r.steps[0].judged_depth = 9; }}) {
    RequestRecord request = two_steps();
    damage(request);
    Counts counts;
    counts.add(request);
    EXPECT_THROW(counts.check_identities(), Error);
  }
}

TEST(BootstrapMedian, BracketsTheMedian) {
  const std::vector<double> values = {1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 9.0};
  const Interval interval = bootstrap_median(values);
  EXPECT_DOUBLE_EQ(interval.median, 1.3);
  EXPECT_GE(interval.low, 1.0);
  EXPECT_LE(interval.low, 1.2);
  EXPECT_GE(interval.high, 1.4);
  EXPECT_TRUE(std::isnan(bootstrap_median({}).median));
  const std::vector<double> single = {2.0};
  EXPECT_DOUBLE_EQ(bootstrap_median(single).low, 2.0);
}

}  // namespace
}  // namespace specmoe
