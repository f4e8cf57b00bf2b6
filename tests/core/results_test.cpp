#include "core/results.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/check.h"

namespace specmoe {
namespace {

using nlohmann::json;

/// Two steps of a chain of 3: the first keeps 2 of 3, the second 0 of 3. Two MoE layers.
RequestRecord two_steps() {
  RequestRecord record;
  record.id = "81";
  record.prompt = {5, 6};
  record.tokens = {10, 11, 12, 13};
  record.from_draft = {1, 1, 0, 0};
  record.finish = FinishReason::kMaxTokens;
  StepRecord first;
  first.drafted = 3;
  first.accepted = 2;
  first.rejected = 1;
  first.emitted = 3;
  first.drafted_depth = 3;
  first.judged_depth = 3;
  first.pass_rows = 4;
  first.times = {1'000'000, 3'000'000, 500'000, 500'000};
  StepRecord second = first;
  second.accepted = 0;
  second.unjudged = 2;
  second.emitted = 1;
  second.judged_depth = 1;
  record.steps = {first, second};
  record.unique_experts = {4, 5, 6, 7};
  record.moe_layers = 2;
  record.prefill_ns = 10'000'000;
  return record;
}

AnswerContext context() {
  AnswerContext context;
  context.category = "math";
  context.model_id = "target-ngram";
  context.spec = {"ngram(max_n=4)", "chain(gamma=3)", "token", false};
  context.sampling.seed = 7;
  context.text = "four";
  context.experts_per_token = 2;
  return context;
}

TEST(Results, AnswerHasTheSpecBenchShape) {
  const json row = json::parse(answer_json(two_steps(), context()));
  EXPECT_EQ(row["question_id"], 81);
  EXPECT_EQ(row["category"], "math");
  EXPECT_EQ(row["model_id"], "target-ngram");
  const json& choice = row["choices"][0];
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["turns"], json({"four"}));
  EXPECT_EQ(choice["decoding_steps"], json::array({2}));
  EXPECT_EQ(choice["new_tokens"], json::array({4}));
  EXPECT_NEAR(choice["wall_time"][0].get<double>(), 0.020, 1e-12);  // prefill and both steps
  EXPECT_EQ(choice["accept_lengths"], json({3, 1}));
}

TEST(Results, AnswerCarriesEveryCount) {
  const json row = json::parse(answer_json(two_steps(), context()));
  EXPECT_EQ(row["prompt_ids"], json({5, 6}));
  EXPECT_EQ(row["token_ids"], json({10, 11, 12, 13}));
  EXPECT_EQ(row["drafted_by_position"], json({2, 2, 2}));
  EXPECT_EQ(row["judged_by_position"], json({2, 1, 1}));
  EXPECT_EQ(row["accepted_by_position"], json({1, 1}));
  EXPECT_EQ(row["acceptance_per_position"], json({0.5, 1.0, 0.0}));
  EXPECT_EQ(row["per_step_accepted"], json({2, 0}));
  EXPECT_EQ(row["per_step_unique_experts"], json({{4, 5}, {6, 7}}));
  EXPECT_EQ(row["unique_experts_per_layer"], json({5.0, 6.0}));
  EXPECT_EQ(row["num_draft_tokens"].get<int>(), row["num_accepted_draft_tokens"].get<int>() +
                                                    row["num_rejected_draft_tokens"].get<int>() +
                                                    row["num_unjudged_draft_tokens"].get<int>());
  EXPECT_EQ(row["stage_ms"]["verify"], 6.0);
  EXPECT_EQ(row["per_step_draft_us"], json({1000.0, 1000.0}));
  EXPECT_EQ(row["mean_acceptance_length"], 2.0);
  EXPECT_EQ(row["finish_reason"], "max_new_tokens");
}

TEST(Results, AnswerIsValidJsonWhateverTheBytes) {
  RequestRecord record = two_steps();
  record.id = "q \"1\"\n\xFF";
  AnswerContext odd = context();
  odd.text = std::string("\x00\x01\xC3 \xED\xA0\x80 \"\\\n\xF0\x9F\x98", 14);
  const std::string line = answer_json(record, odd);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_TRUE(json::accept(line)) << line;
}

TEST(Results, IdsThatOnlyLookLikeNumbersStayText) {
  RequestRecord record = two_steps();
  for (const char* id : {"007", "1e3", "-", "", "99999999999999999999", "+5"}) {
    record.id = id;
    EXPECT_EQ(json::parse(answer_json(record, context()))["question_id"], id);
  }
}

TEST(Results, AnswerRefusesCountsThatDoNotAddUp) {
  RequestRecord record = two_steps();
  record.steps[0].rejected = 0;
  EXPECT_THROW(answer_json(record, context()), Error);
}

BenchSummary summary() {
  BenchSummary summary;
  summary.spec = context().spec;
  summary.lossless = true;
  summary.prompts = 1;
  summary.runs = 2;
  summary.speculative.add(two_steps());
  RequestRecord plain = two_steps();
  for (StepRecord& step : plain.steps) {
    step = StepRecord{};
    step.emitted = 1;
    step.pass_rows = 1;
    step.times.verify_ns = 2'000'000;
  }
  summary.plain.add(plain);
  summary.speedups = {1.5};
  summary.speedup = {1.5, 1.5, 1.5};
  summary.identical = true;
  return summary;
}

TEST(Results, VerifyCostRatioComparesMeanPasses) {
  EXPECT_DOUBLE_EQ(verify_cost_ratio(summary().speculative, summary().plain), 1.5);
  EXPECT_TRUE(std::isnan(verify_cost_ratio(Counts{}, summary().plain)));
  EXPECT_TRUE(std::isnan(verify_cost_ratio(summary().speculative, Counts{})));
}

TEST(Results, SummaryHoldsFiguresAndProvenance) {
  ModelInfo target;
  target.name = "target";
  target.dtype = "bfloat16";
  target.instruction_set = "avx2";
  target.experts_per_token = 2;
  const Provenance provenance{"abc", "gcc 12", "A CPU", 2, "2026-01-01T00:00:00Z"};
  const json row = json::parse(summary_json(summary(), target, 2, provenance, R"({"tree":["chain"]})"));
  EXPECT_EQ(row["kind"], "summary");
  EXPECT_DOUBLE_EQ(row["plain_tokens_per_s"].get<double>(), 500.0);
  EXPECT_DOUBLE_EQ(row["speculative_tokens_per_s"].get<double>(), 400.0);
  EXPECT_EQ(row["speedup"], json({{"median", 1.5}, {"low", 1.5}, {"high", 1.5}}));
  EXPECT_EQ(row["tau"], 2.0);
  EXPECT_EQ(row["acceptance_per_position"], json({0.5, 1.0, 0.0}));
  EXPECT_EQ(row["verify_cost_ratio"], 1.5);
  EXPECT_EQ(row["identical"], true);
  for (const char* key : {"commit", "compiler", "cpu", "instruction_set", "threads", "dtype", "seed", "config"}) {
    EXPECT_TRUE(row["provenance"].contains(key)) << key;
  }
  EXPECT_EQ(row["provenance"]["config"]["tree"], json({"chain"}));
}

TEST(Results, SummaryAboveTemperatureZeroClaimsNoIdentity) {
  BenchSummary sampled = summary();
  sampled.identical.reset();
  const json row = json::parse(summary_json(sampled, ModelInfo{}, 1, Provenance{}, "{}"));
  EXPECT_TRUE(row["identical"].is_null());
}

TEST(Results, ACombinationThatCouldNotRunSaysWhy) {
  BenchSummary cell = summary();
  cell.spec = context().spec;
  const json row = json::parse(failure_json(cell, "not lossless"));
  EXPECT_EQ(row["kind"], "failed");
  EXPECT_EQ(row["tree"], "chain(gamma=3)");
  EXPECT_EQ(row["error"], "not lossless");
}

TEST(Provenance, NamesThisMachine) {
  const Provenance here = collect_provenance();
  EXPECT_FALSE(here.commit.empty());
  EXPECT_NE(here.compiler.find_first_of("0123456789"), std::string::npos);
  EXPECT_GE(here.cores, 1);
  EXPECT_EQ(here.started.size(), std::string("2026-01-01T00:00:00Z").size());
}

}  // namespace
}  // namespace specmoe
