#include "core/engine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/logit_rows.h"
#include "core/metrics.h"
#include "kernels/check.h"
#include "tests/support/every_third.h"
#include "tests/support/penalties.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

const ToyOptions kTarget{};
const ToyOptions kDrafter{.own_seed = 99, .agreement = 0.75};

std::shared_ptr<LanguageModel> load_toy(const std::string& path, const std::string&) {
  ToyOptions options = kDrafter;
  if (path == "same") options = kTarget;
  if (path == "other-vocabulary") options.vocab = kTarget.vocab + 1;
  return make_toy_model(options);
}

Engine make_engine(const EngineSpec& spec) { return Engine(make_toy_model(kTarget), spec, load_toy); }

Request make_request(std::vector<TokenId> prompt, int new_tokens = 40) {
  Request request;
  request.id.assign(1, 'r');
  request.prompt = std::move(prompt);
  request.max_new_tokens = new_tokens;
  return request;
}

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Engine, PlainDecodingIsGreedyDecoding) {
  Engine engine = make_engine({});
  const std::vector<Request> requests = {make_request({1, 2, 3})};
  const auto records = engine.generate(requests);
  EXPECT_EQ(records[0].tokens, test::toy_greedy(kTarget, {1, 2, 3}, 40));
  EXPECT_EQ(records[0].finish, FinishReason::kMaxTokens);
  EXPECT_EQ(records[0].steps.size(), 40U);
}

// Every drafter x topology that is registered without needing anything else.
TEST(Engine, GreedySpeculationEqualsPlainDecoding) {
  for (const char* drafter : {"independent(path=x)", "independent(path=same)", "ngram", "ngram(max_n=2,choices=3)",
                              "synthetic(alpha=0.7)", "synthetic(alpha=0)", "synthetic(alpha=1)"}) {
    for (const char* tree : {"chain(1)", "chain(4)", "chain(9)", "expansion(2,2)", "expansion(3,1,2)"}) {
      for (int batch : {1, 3}) {
        Engine engine = make_engine({.drafter = drafter, .tree = tree});
        const std::vector<Request> requests = {make_request({1, 2, 3}), make_request({5}, 1), make_request({4, 4}, 33),
                                               make_request({9, 8, 7, 6, 5, 4}, 25)};
        const auto records = engine.generate(requests, batch);
        Counts counts;
        for (std::size_t i = 0; i < requests.size(); ++i) {
          EXPECT_EQ(records[i].tokens, test::toy_greedy(kTarget, requests[i].prompt, requests[i].max_new_tokens))
              << drafter << " " << tree << " batch " << batch << " request " << i;
          counts.add(records[i]);
        }
        counts.check_identities();
      }
    }
  }
}

/// What greedy decoding with penalties or a logits processor must give, computed without engine, cache or trees.
std::vector<TokenId> changed_greedy(const Request& request) {
  std::vector<TokenId> text = request.prompt;
  std::vector<TokenId> output;
  for (int i = 0; i < request.max_new_tokens; ++i) {
    const std::vector<float> logits = test::toy_logits(kTarget, text);
    const auto penalised = test::penalised(logits, request.prompt, output, request.sampling);
    std::vector<float> row(penalised.begin(), penalised.end());
    if (request.logits_processor != nullptr) request.logits_processor->process(request.prompt, output, row);
    output.push_back(static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin()));
    text.push_back(output.back());
  }
  return output;
}

TEST(Engine, GreedySpeculationWithChangedLogitsEqualsPlainDecoding) {
  std::vector<Request> requests = {make_request({1, 2, 3}),  make_request({5}),
                                   make_request({4, 4}, 33), make_request({9, 8, 7, 6, 5, 4}, 25),
                                   make_request({2, 7}),     make_request({6, 1})};
  requests[0].sampling = {.repetition_penalty = 1.4};
  requests[1].sampling = {.presence_penalty = -1.5, .frequency_penalty = 0.3};  // requests[2] has none
  requests[3].sampling = {.repetition_penalty = 0.8, .presence_penalty = 0.5};
  requests[4].logits_processor = requests[5].logits_processor = std::make_shared<test::EveryThird>();
  requests[5].sampling = requests[0].sampling;
  std::vector<std::vector<TokenId>> expected;
  for (const Request& request : requests) expected.push_back(changed_greedy(request));
  for (std::size_t i : {0, 1, 3, 4, 5}) {
    EXPECT_NE(expected[i], test::toy_greedy(kTarget, requests[i].prompt, requests[i].max_new_tokens))
        << "tells nothing";
  }
  Counts counts;
  for (const char* drafter :
       {"", "independent(path=x)", "independent(path=same)", "ngram(max_n=2,choices=3)", "synthetic(alpha=0.7)"}) {
    for (const char* tree : {"chain(1)", "chain(9)", "expansion(2,2)", "expansion(3,1,2)"}) {
      for (int batch : {1, 3}) {
        Engine engine = make_engine({.drafter = drafter, .tree = *drafter ? tree : ""});
        const auto records = engine.generate(requests, batch);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          EXPECT_EQ(records[i].tokens, expected[i]) << drafter << " " << tree << " batch " << batch << " request " << i;
          if (*drafter) counts.add(records[i]);
        }
      }
    }
  }
  EXPECT_GT(counts.accepted, 1000);
  EXPECT_GT(counts.rejected, 1000);
}

/// A policy that is not the greedy walk asks for the same rows.
TEST(Engine, LossyPoliciesSeeChangedRows) {
  Request request = make_request({1, 2, 3});
  request.sampling = {.repetition_penalty = 1.4, .frequency_penalty = 0.2};
  Engine engine = make_engine({.drafter = "independent(path=x)", .acceptance = "typical", .allow_lossy = true});
  EXPECT_EQ(engine.generate({&request, 1})[0].tokens, changed_greedy(request));
  request.logits_processor = std::make_shared<test::EveryThird>();
  EXPECT_EQ(engine.generate({&request, 1})[0].tokens, changed_greedy(request));
}

TEST(Engine, ADrafterEqualToTheTargetIsAlwaysAccepted) {
  Engine engine = make_engine({.drafter = "independent(path=same)", .tree = "chain(4)", .acceptance = "token"});
  std::vector<Request> requests(4, make_request({1, 2, 3}, 50));
  requests[1].sampling = requests[3].sampling = {.repetition_penalty = 1.3, .frequency_penalty = 1.0};
  requests[2].logits_processor = requests[3].logits_processor = std::make_shared<test::EveryThird>();
  for (double temperature : {0.0, 0.8}) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].sampling.temperature = temperature;
      Counts counts;
      counts.add(engine.generate({&requests[i], 1})[0]);
      EXPECT_EQ(counts.accepted, counts.drafted) << "temperature " << temperature << " request " << i;
      EXPECT_EQ(counts.steps, 10);
    }
  }
}

TEST(Engine, SyntheticAcceptanceIsTheOneAskedFor) {
  Engine engine = make_engine({.drafter = "synthetic(alpha=0.7)", .tree = "chain(4)"});
  Request request = make_request({1}, 400);
  const auto records = engine.generate({&request, 1});
  Counts counts;
  counts.add(records[0]);
  const Metrics metrics = derive(counts, 2);
  // About 320 judged tokens: standard error 0.026, three of them.
  EXPECT_NEAR(metrics.acceptance_rate, 0.7, 0.08);
}

TEST(Engine, TheSeedAloneDecidesASampledText) {
  const EngineSpec spec{.drafter = "independent(path=x)", .tree = "chain(3)", .acceptance = "token"};
  Request request = make_request({1, 2, 3});
  request.sampling = {.temperature = 1.0, .seed = 7, .sequence = 4};
  Request other = make_request({6, 6}, 13);
  other.sampling = {.temperature = 0.5, .seed = 1};
  Engine engine = make_engine(spec);
  const auto alone = engine.generate({&request, 1});
  const std::vector<Request> crowd = {other, request, other, other};
  EXPECT_EQ(make_engine(spec).generate(crowd, 3)[1].tokens, alone[0].tokens);
  EXPECT_EQ(make_engine(spec).generate(crowd, 1)[1].tokens, alone[0].tokens);
  request.sampling.seed = 8;
  EXPECT_NE(make_engine(spec).generate({&request, 1})[0].tokens, alone[0].tokens);
}

TEST(Engine, OnlyEqualRequestsAreNumbered) {
  std::vector<Request> requests = {make_request({1}), make_request({2}), make_request({1}), make_request({1})};
  requests[3].sampling.seed = 5;
  tell_repeats_apart(requests);
  EXPECT_EQ(requests[0].sampling.sequence, 0U);
  EXPECT_EQ(requests[1].sampling.sequence, 0U) << "its place in the list must not matter";
  EXPECT_EQ(requests[2].sampling.sequence, 1U);
  EXPECT_EQ(requests[3].sampling.sequence, 0U);
}

TEST(Engine, TakesReadyMadePartsInPlaceOfTheirSpecs) {
  EngineParts parts;
  parts.tree = tree_policies().create("chain(2)");
  Engine engine(make_toy_model(kTarget), {.drafter = "ngram"}, {}, parts);
  Request request = make_request({1, 2, 1, 2, 1});
  const auto record = engine.generate({&request, 1})[0];
  EXPECT_EQ(record.tokens, test::toy_greedy(kTarget, request.prompt, 40));
  for (const StepRecord& step : record.steps) EXPECT_LE(step.drafted, 2);
  EXPECT_THROW(Engine(make_toy_model(kTarget), {}, {}, parts), Error) << "a tree without a drafter";
}

TEST(Engine, NothingIsEmittedOrCountedPastAStop) {
  const std::vector<TokenId> greedy = test::toy_greedy(kTarget, {1, 2, 3}, 60);
  for (const char* drafter : {"", "synthetic(alpha=1)"}) {
    const EngineSpec spec{.drafter = drafter, .tree = *drafter ? "chain(7)" : ""};
    for (int stop_at : {0, 1, 5, 6, 7, 20}) {
      const TokenId stop = greedy[stop_at];
      const auto first = std::find(greedy.begin(), greedy.end(), stop) - greedy.begin();
      Request request = make_request({1, 2, 3}, 60);
      request.stop_tokens = {stop};
      const auto record = make_engine(spec).generate({&request, 1})[0];
      EXPECT_EQ(record.tokens, std::vector<TokenId>(greedy.begin(), greedy.begin() + first + 1));
      EXPECT_EQ(record.finish, FinishReason::kStopToken);
      Counts counts;
      counts.add(record);
      counts.check_identities();
      EXPECT_EQ(counts.emitted, first + 1);
      EXPECT_LE(counts.accepted, counts.emitted);
      if (*drafter) {
        EXPECT_EQ(derive(counts, 2).acceptance_rate, 1.0) << "what lies behind the stop was never judged";
      }
    }
  }
}

TEST(Engine, AListenerMayEndTheText) {
  Request request = make_request({1, 2, 3}, 60);
  int heard = 0;
  request.on_token = [&](TokenId, bool) { return ++heard == 11; };
  Engine engine = make_engine({.drafter = "synthetic(alpha=1)", .tree = "chain(7)"});
  const auto record = engine.generate({&request, 1})[0];
  EXPECT_EQ(record.tokens.size(), 11U);
  EXPECT_EQ(heard, 11);
  EXPECT_EQ(record.finish, FinishReason::kStopText);
}

TEST(Engine, TheContextEndsTheText) {
  Request request = make_request(std::vector<TokenId>(500, 1), 100);
  for (const char* drafter : {"", "synthetic(alpha=1)", "independent(path=x)", "ngram"}) {
    const auto record = make_engine({.drafter = drafter}).generate({&request, 1})[0];
    EXPECT_EQ(record.tokens.size(), 12U) << drafter;
    EXPECT_EQ(record.finish, FinishReason::kContextFull);
  }
}

TEST(Engine, RefusesWhatCannotBeRun) {
  EXPECT_NE(error_of([] { make_engine({.drafter = "nonsense"}); }).find("known: dflash"), std::string::npos);
  EXPECT_NE(
      error_of([] { make_engine({.drafter = "ngram", .tree = "chain(gama=3)"}); }).find("accepted parameters: gamma"),
      std::string::npos);
  EXPECT_NE(error_of([] { make_engine({.drafter = "independent(path=other-vocabulary)"}); }).find("vocabulary"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              make_engine({.drafter = "ngram", .tree = "expansion(2)", .acceptance = "token"});
            }).find("chains only"),
            std::string::npos);
  EXPECT_THROW(make_engine({.tree = "chain"}), Error);
  Engine engine = make_engine({.drafter = "ngram", .acceptance = "greedy"});
  const auto refused = [&](auto&& change) {
    Request request = make_request({1});
    change(request);
    return error_of([&] { engine.generate({&request, 1}); });
  };
  EXPECT_NE(refused([](Request& r) { r.prompt.clear(); }).find("empty"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.prompt = {17}; }).find("outside the vocabulary"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.prompt.assign(600, 1); }).find("context"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.max_new_tokens = 0; }).find("at least 1"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.sampling.temperature = -1; }).find("temperature"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.sampling.top_p = 0; }).find("top_p"), std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.sampling.min_p = 1.5; }).find("min_p"), std::string::npos);
  for (double penalty : {0.0, -1.0, 1e-40, 1e40, double{INFINITY}, double{NAN}}) {
    EXPECT_NE(refused([&](Request& r) { r.sampling.repetition_penalty = penalty; }).find("repetition_penalty"),
              std::string::npos);
  }
  for (double penalty : {1e40, -1e40, double{INFINITY}, double{NAN}}) {
    EXPECT_NE(refused([&](Request& r) { r.sampling.presence_penalty = penalty; }).find("presence_penalty"),
              std::string::npos);
    EXPECT_NE(refused([&](Request& r) { r.sampling.frequency_penalty = penalty; }).find("frequency_penalty"),
              std::string::npos);
  }
  EXPECT_NE(refused([](Request& r) { r.sampling.temperature = 1; }).find("argmax"), std::string::npos);
}

TEST(Engine, RefusesAVerdictThatIsNone) {
  struct Judge final : AcceptancePolicy {
    Verdict said;
    LawSet lossless_laws() const override { return LawSet::all(); }
    bool judges_trees() const override { return true; }
    void judge(Draft<float>&, ProbRows<float>&, UniformSource<double>&, Verdict& verdict) const override {
      verdict = said;
    }
    void judge(Draft<double>&, ProbRows<double>&, UniformSource<double>&, Verdict&) const override {}
  };
  const auto judge = std::make_shared<Judge>();
  Engine engine(make_toy_model(kTarget), {.drafter = "synthetic", .tree = "chain(gamma=3)"}, {}, {.acceptance = judge});
  Request request = make_request({1, 2, 3}, 1);
  request.sampling.temperature = 1;
  request.sampling.presence_penalty = 1;
  const auto refused = [&](const Verdict& said) {
    judge->said = said;
    return error_of([&] { engine.generate({&request, 1}); });
  };
  EXPECT_EQ(refused({{}, 16}), "no error");
  for (const TokenId token : {-1, 17, 1 << 30}) {
    EXPECT_NE(refused({{}, token}).find("outside the vocabulary of 17"), std::string::npos) << token;
  }
  request.max_new_tokens = 8;
  for (const NodeId node : {-3, 0, 2, 1 << 30}) {
    EXPECT_NE(refused({{node}, 1}).find("does not follow node 0"), std::string::npos) << node;
  }
  judge->said = {{}, 5};
  EXPECT_EQ(engine.generate({&request, 1})[0].tokens, std::vector<TokenId>(8, 5)) << "usable afterwards";
}

TEST(Engine, PollCanEndARun) {
  Engine engine = make_engine({});
  Request request = make_request({1}, 100);
  int steps = 0;
  EXPECT_THROW(engine.generate({&request, 1}, 1,
                               [&] {
                                 if (++steps == 5) throw std::runtime_error("interrupted");
                               }),
               std::runtime_error);
  EXPECT_EQ(engine.generate({&request, 1})[0].tokens.size(), 100U) << "the engine must be usable afterwards";
}

TEST(Engine, PollCanEndARunBeforeAllPromptsAreRead) {
  struct Counting final : LogitsProcessor {
    int asked = 0;
    void process(std::span<const TokenId>, std::span<const TokenId>, std::span<float>) override { ++asked; }
  };
  const auto processor = std::make_shared<Counting>();
  Engine engine = make_engine({});
  std::vector<Request> requests(3, make_request({1}, 100));
  for (Request& request : requests) request.logits_processor = processor;
  int polled = 0;
  const auto interrupt = [&] {
    if (++polled == 2) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(engine.generate(requests, 3, interrupt), std::runtime_error);
  EXPECT_EQ(processor->asked, 0) << "a step ran before the second prompt was followed by a poll";
}

TEST(Engine, PollCanEndARunWithinAPrompt) {
  Engine engine = make_engine({});
  const Request request = make_request(std::vector<TokenId>(3 * kPrefillRows / 2, 1), 4);
  int polled = 0;
  const auto interrupt = [&] {
    if (++polled == 2) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(engine.generate({&request, 1}, 1, interrupt), std::runtime_error);
  polled = -100;
  EXPECT_EQ(engine.generate({&request, 1}, 1, interrupt)[0].tokens.size(), 4U);
  EXPECT_EQ(polled + 100, 2 + 4) << "once for each pass and each step";
}

}  // namespace
}  // namespace specmoe
