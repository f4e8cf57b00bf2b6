#include <gtest/gtest.h>

#include "core/engine.h"
#include "kernels/check.h"
#include "tests/support/every_third.h"
#include "tests/support/step_counts.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

const ToyOptions kTarget{.max_positions = 64};
const ToyOptions kDrafter{.own_seed = 99, .agreement = 0.75};

std::shared_ptr<LanguageModel> load_toy(const std::string&, const std::string&) { return make_toy_model(kDrafter); }

Engine make_engine(const EngineSpec& spec) { return Engine(make_toy_model(kTarget), spec, load_toy); }

Request make_request(std::vector<TokenId> prompt, int new_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = new_tokens;
  return request;
}

/// Texts that end in every way there is, one of them with its first token, and some of changed logits.
std::vector<Request> all_kinds_of_requests() {
  std::vector<Request> requests = {make_request({1, 2, 3}, 40), make_request({5}, 1),     make_request({4, 4}, 200),
                                   make_request({1, 2, 3}, 40), make_request({9, 8}, 40), make_request({1, 2, 3}, 40),
                                   make_request({6, 1}, 40),    make_request({2, 7}, 40)};
  const std::vector<TokenId> greedy = test::toy_greedy(kTarget, {1, 2, 3}, 40);
  requests[3].stop_tokens = {greedy[17]};
  requests[4].on_token = [seen = std::make_shared<int>(0)](TokenId, bool) { return ++*seen % 11 == 0; };
  requests[5].stop_tokens = {greedy[0]};
  requests[6].sampling = {.repetition_penalty = 1.4, .presence_penalty = 0.5};
  requests[7].logits_processor = std::make_shared<test::EveryThird>();
  return requests;
}

TEST(Replay, CountsWhatARunCounts) {
  const std::vector<Request> requests = all_kinds_of_requests();
  const auto plain = make_engine({}).generate(requests);
  std::vector<FinishReason> ends;
  for (const RequestRecord& text : plain) ends.push_back(text.finish);
  using enum FinishReason;
  ASSERT_EQ(ends, (std::vector{kMaxTokens, kMaxTokens, kContextFull, kStopToken, kStopText, kStopToken, kMaxTokens,
                               kMaxTokens}));
  std::vector<std::string> trees = tree_policies().names();
  trees.insert(trees.end(), {"chain(1)", "chain(9)", "expansion(2,2)", "adaptive_chain(threshold=0.7,learn=0.3)",
                             "adaptive_chain(threshold=0.2,off_below=0.5,pause=3)"});
  int truncated = 0;
  for (const char* drafter : {"independent(path=x)", "ngram(max_n=2,choices=3)", "synthetic(alpha=0.7)", "self"}) {
    for (const std::string& tree : trees) {
      Engine engine = make_engine({.drafter = drafter, .tree = tree});
      const auto run = engine.generate(requests);
      const auto replayed = engine.replay(requests, plain);
      ASSERT_EQ(replayed.size(), run.size());
      for (std::size_t i = 0; i < run.size(); ++i) {
        SCOPED_TRACE(concat(drafter, " ", tree, " request ", i));
        EXPECT_EQ(test::step_counts(replayed[i]), test::step_counts(run[i]));
        EXPECT_EQ(replayed[i].tokens, run[i].tokens);
        EXPECT_EQ(replayed[i].from_draft, run[i].from_draft);
        EXPECT_EQ(replayed[i].finish, run[i].finish);
        EXPECT_EQ(replayed[i].id, run[i].id);
        for (const StepRecord& step : run[i].steps) truncated += step.truncated;
      }
    }
  }
  EXPECT_GT(truncated, 10) << "no draft went on behind a stop";
}

TEST(Replay, WakesNoExpertsAndLeavesTheEngineAsItWas) {
  Engine engine = make_engine({.drafter = "independent(path=x)", .tree = "expansion(2,2)"});
  const std::vector<Request> requests = {make_request({1, 2, 3}, 30)};
  const auto run = engine.generate(requests);
  const auto replayed = engine.replay(requests, run);
  EXPECT_EQ(replayed[0].moe_layers, 0);
  EXPECT_TRUE(replayed[0].unique_experts.empty());
  const auto again = engine.generate(requests);
  EXPECT_EQ(test::step_counts(again[0]), test::step_counts(run[0]));
  EXPECT_EQ(again[0].unique_experts, run[0].unique_experts);
}

TEST(Replay, CallsPollAndNotTheCaller) {
  std::vector<Request> requests = {make_request({1, 2, 3}, 30)};
  const auto plain = make_engine({}).generate(requests);
  int told = 0, polled = 0;
  requests[0].on_token = [&](TokenId, bool) { return ++told > 0; };
  Engine engine = make_engine({.drafter = "ngram"});
  const auto replayed = engine.replay(requests, plain, [&] { ++polled; });
  EXPECT_EQ(told, 0);
  EXPECT_EQ(polled, static_cast<int>(replayed[0].steps.size()));
  EXPECT_THROW(engine.replay(requests, plain, [] { throw std::runtime_error("stop"); }), std::runtime_error);
}

std::string refusal(const EngineSpec& spec, const Request& request, const RequestRecord& written) {
  try {
    make_engine(spec).replay({&request, 1}, {&written, 1});
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Replay, RefusesWhatItCannotTell) {
  const EngineSpec spec = {.drafter = "ngram"};
  Request request = make_request({1, 2, 3}, 8);
  const RequestRecord written = make_engine({}).generate({&request, 1})[0];
  EXPECT_EQ(refusal(spec, request, written), "no error");
  EXPECT_NE(refusal({}, request, written).find("name a drafter"), std::string::npos);
  const EngineSpec lossy = {.drafter = "ngram", .acceptance = "typical", .allow_lossy = true};
  EXPECT_NE(refusal(lossy, request, written).find("is not lossless"), std::string::npos);
  request.max_new_tokens = 7;
  EXPECT_NE(refusal(spec, request, written).find("has 8 tokens, the request allows 1 to 7"), std::string::npos);
  EXPECT_NE(refusal(spec, make_request({1, 2}, 8), written).find("answers another prompt"), std::string::npos);
  request = make_request({1, 2, 3}, 8);
  request.sampling.temperature = 0.5;
  EXPECT_NE(refusal(spec, request, written).find("needs temperature 0, got 0.5"), std::string::npos);
  try {
    make_engine(spec).replay({&request, 1}, {});
    FAIL() << "a request without a text";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a replay needs a text for each of 1 requests, got 0");
  }
}

}  // namespace
}  // namespace specmoe
