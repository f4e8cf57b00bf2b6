#include "core/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace specmoe {
namespace {

TEST(CostModel, IndependentRowsWakeWhatMoesdGives) {
  // Top 8 of 256, 1 to 32 tokens (Huang et al. 2025).
  const std::vector<std::pair<int, double>> known = {{1, 8}, {2, 15.75}, {4, 30.5}, {8, 57.4}, {16, 102}, {32, 163}};
  for (const auto& [rows, distinct] : known) {
    EXPECT_NEAR(expected_experts(256, 8, rows, 0), distinct, 0.005 * distinct) << rows;
  }
  // A share of 0.54 of further rows chooses by itself: 2.5 times one token's experts at 4 (Cohere 2026, top 8 of 128).
  EXPECT_NEAR(expected_experts(128, 8, 4, 0.46) / 8, 2.5, 0.05);
}

TEST(CostModel, RowsThatChooseAlikeWakeOneTokensExperts) {
  for (const int rows : {1, 2, 32}) EXPECT_DOUBLE_EQ(expected_experts(64, 8, rows, 1), 8);
}

TEST(CostModel, FindsTheCorrelationItWasGiven) {
  for (const double correlation : {-0.3, 0.0, 0.46, 0.9}) {
    std::vector<CountedExperts> counted;
    for (const int rows : {1, 2, 4, 8}) counted.push_back({double(rows), expected_experts(64, 8, rows, correlation)});
    EXPECT_NEAR(fit_routing_correlation(64, 8, counted), correlation, 1e-3);
  }
}

TEST(CostModel, HasNoCorrelationToFitWhereNothingTells) {
  const CountedExperts one = {1, 8};
  EXPECT_TRUE(std::isnan(fit_routing_correlation(64, 8, {&one, 1})));
  const CountedExperts all = {4, 8};
  EXPECT_TRUE(std::isnan(fit_routing_correlation(8, 8, {&all, 1})));  // each token takes every expert
}

ModelInfo mixture() {
  ModelInfo info;
  info.layers = 3;
  info.moe_layers = 2;
  info.experts = 8;
  info.experts_per_token = 2;
  info.expert_bytes = 100;
  info.active_weight_bytes = 1000 + 2 * 2 * 100;
  info.active_parameters = 700;
  info.kv_bytes_per_token = 10;
  return info;
}

TEST(CostModel, CountsWhatAPassReads) {
  const PassWork work = pass_work(mixture(), /*rows=*/4, /*context=*/60, /*experts=*/5.5);
  EXPECT_DOUBLE_EQ(work.bytes, 1000 + 2 * 5.5 * 100 + 10 * 64);
  EXPECT_DOUBLE_EQ(work.operations, 2 * 4 * 700);
}

TEST(CostModel, ADensePassReadsTheSameForAnyRows) {
  ModelInfo info = mixture();
  info.moe_layers = info.experts = info.experts_per_token = 0;
  info.expert_bytes = info.kv_bytes_per_token = 0;
  EXPECT_DOUBLE_EQ(pass_work(info, 1, 0, 0).bytes, pass_work(info, 16, 0, 0).bytes);
}

TEST(CostModel, TakesTheLargerOfBytesAndArithmetic) {
  EXPECT_DOUBLE_EQ(pass_seconds({100, 30}, {10, 10}), 10);
  EXPECT_DOUBLE_EQ(pass_seconds({100, 300}, {10, 10}), 30);
  EXPECT_DOUBLE_EQ(pass_seconds({100, 300}, {10, 0}), 10);
}

}  // namespace
}  // namespace specmoe
