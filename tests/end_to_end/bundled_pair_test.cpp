#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>

#include "core/engine.h"
#include "core/metrics.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "tests/support/every_third.h"
#include "tests/support/medusa_folder.h"
#include "tests/support/step_counts.h"

namespace specmoe {
namespace {

const std::string kModels = std::string(SPECMOE_SOURCE_ROOT) + "/experiments/models";
const std::string kIndependent = "independent(path=" + kModels + "/drafter)";
const std::string kEagle = "eagle(path=" + kModels + "/eagle)";
const std::string kPard = "pard(path=" + kModels + "/pard)";
const std::string kDflash = "dflash(path=" + kModels + "/dflash)";

const std::vector<std::string> kPrompts = {
    "Problem: Maria buys 5 maps at 6 coins each and 4 tickets at 4 coins each. Maria pays with 63 coins. How many "
    "coins "
    "come back?\nSolution:",
    "Problem: There are 41 stars in the box of Felix. A friend brings 25 more, then Felix loses 24. How many stars "
    "does "
    "Felix have now?\nSolution:",
    "def read(self, size=-1):\n    \"\"\"",
};

struct Types {
  kernels::DType weights;
  kernels::DType cache = kernels::DType::kFloat32;

  std::string name() const {
    const bool narrow = cache != kernels::DType::kFloat32;
    return concat(kernels::dtype_name(weights), narrow ? "_kv_" : "", narrow ? kernels::dtype_name(cache) : "");
  }
  friend void PrintTo(const Types& types, std::ostream* out) { *out << types.name(); }
};

/// The bundled pair with weights and caches of some types, with threads shared.
struct Pair {
  explicit Pair(Types types)
      : options(load_options(types)),
        target(nn::load_model(kModels + "/target", options)),
        tokenizer(nn::Tokenizer::from_file(kModels + "/target")) {}

  static nn::LoadOptions load_options(Types types) {
    nn::LoadOptions options;
    options.dtype = types.weights;
    options.kv_dtype = types.cache;
    options.pool = std::make_shared<kernels::ThreadPool>(2);
    return options;
  }

  Engine engine(const EngineSpec& spec) const { return Engine(target, spec, nn::draft_loader(options)); }
  std::vector<Request> requests(int new_tokens) const {
    std::vector<Request> all;
    for (const std::string& prompt : kPrompts) {
      Request request;
      request.prompt = tokenizer->encode(prompt);
      request.max_new_tokens = new_tokens;
      all.push_back(request);
    }
    return all;
  }

  nn::LoadOptions options;
  std::shared_ptr<LanguageModel> target;
  std::shared_ptr<const nn::Tokenizer> tokenizer;
};

class BundledPair : public testing::TestWithParam<Types> {};

void expect_texts(Engine engine, const std::vector<Request>& requests, const std::vector<RequestRecord>& plain) {
  const auto records = engine.generate(requests, 2);
  Counts counts;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(records[i].tokens, plain[i].tokens)
        << engine.spec().drafter << " " << engine.spec().tree << " prompt " << i;
    counts.add(records[i]);
  }
  counts.check_identities();
}

/// Promise "exact": whatever the drafter, the topology and the batch, the ids are those of plain decoding.
TEST_P(BundledPair, GreedySpeculationEqualsPlainDecoding) {
  const Pair pair(GetParam());
  const std::vector<Request> requests = pair.requests(24);
  const auto plain = pair.engine({}).generate(requests);
  std::vector<std::string> trees = {"chain(1)", "chain(7)", "expansion(2,2,1)", "expansion(4,2)"};
  const bool common = GetParam().weights != kernels::DType::kInt8 && GetParam().cache == kernels::DType::kFloat32;
  for (const std::string& name : tree_policies().names()) {
    if (common) trees.push_back(name);  // types and topologies do not meet
  }
  const test::MedusaFolder medusa(pair.target->info().hidden_size);
  const std::vector<std::string> drafters = {kIndependent,
                                             kEagle,
                                             kPard,
                                             kDflash,
                                             "ngram",
                                             "self(experts=1)",
                                             "synthetic(alpha=0.8)",
                                             "medusa(path=" + medusa.path() + ")"};
  for (const std::string& drafter : drafters) {
    for (const std::string& tree : trees) {
      expect_texts(pair.engine({.drafter = drafter, .tree = tree, .allow_lossy = true}), requests, plain);
    }
  }
}

/// The same with penalties or a logits processor, by which each node of a draft has its own row.
TEST_P(BundledPair, GreedySpeculationWithChangedLogitsEqualsPlainDecoding) {
  const Pair pair(GetParam());
  std::vector<Request> requests = pair.requests(24);
  const auto without = pair.engine({}).generate(requests);
  for (Request& request : requests) {
    request.sampling = {.repetition_penalty = 1.5, .presence_penalty = 4.0, .frequency_penalty = 4.0};
  }
  requests[0].sampling = {};
  requests[0].logits_processor = std::make_shared<test::EveryThird>();
  const auto plain = pair.engine({}).generate(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_NE(plain[i].tokens, without[i].tokens) << "prompt " << i;
  std::vector<std::string> trees = {"chain(4)", "expansion(2,2,1)"};
  if (GetParam().name() == "bfloat16") trees = tree_policies().names();
  for (const std::string& drafter :
       {kIndependent, kEagle, kPard, kDflash, std::string("ngram"), std::string("self(experts=1)")}) {
    for (const std::string& tree : trees) {
      expect_texts(pair.engine({.drafter = drafter, .tree = tree, .allow_lossy = true}), requests, plain);
    }
  }
}

/// Bit for bit as well: hidden rows of one pass over the text are those of a run's steps.
TEST_P(BundledPair, AReplayCountsWhatARunCounts) {
  const Pair pair(GetParam());
  std::vector<Request> requests = pair.requests(24);
  requests.resize(2);
  const auto plain = pair.engine({}).generate(requests);
  const test::MedusaFolder medusa(pair.target->info().hidden_size);
  for (const std::string& drafter :
       {kIndependent, kPard, "medusa(path=" + medusa.path() + ")", "merged(" + kIndependent + ", " + kEagle + ")"}) {
    for (const char* tree : {"adaptive_chain(threshold=0.7)", "best_first(nodes=8)"}) {
      Engine engine = pair.engine({.drafter = drafter, .tree = tree});
      const auto run = engine.generate(requests);
      const auto replayed = engine.replay(requests, plain);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(test::step_counts(replayed[i]), test::step_counts(run[i])) << drafter << " " << tree << " " << i;
      }
    }
  }
}

/// The inputs are telling: drafts are both accepted and rejected, and steps wake different numbers of experts.
TEST_P(BundledPair, TheDrafterIsOftenRightAndSometimesWrong) {
  const Pair pair(GetParam());
  Engine engine = pair.engine({.drafter = kIndependent, .tree = "chain(4)"});
  Counts counts;
  for (const RequestRecord& record : engine.generate(pair.requests(48))) counts.add(record);
  EXPECT_GT(counts.accepted, counts.drafted / 5);
  EXPECT_GT(counts.rejected, 0);
  const ModelInfo& info = pair.target->info();
  const Metrics metrics = derive(counts, info.experts_per_token);
  EXPECT_GT(metrics.unique_experts, info.experts_per_token);
  EXPECT_LT(metrics.unique_experts, info.experts);
}

TEST_P(BundledPair, ATargetThatDraftsForItselfIsAlwaysAccepted) {
  const Pair pair(GetParam());
  for (const std::string& self : {"independent(path=" + kModels + "/target)", std::string("self(experts=0)")}) {
    for (double temperature : {0.0, 0.9}) {
      std::vector<Request> requests = pair.requests(40);
      for (Request& request : requests) request.sampling.temperature = temperature;
      Counts counts;
      for (const RequestRecord& record : pair.engine({.drafter = self}).generate(requests)) counts.add(record);
      EXPECT_EQ(counts.accepted, counts.drafted) << self << " temperature " << temperature;
    }
  }
}

TEST_P(BundledPair, TheSeedAloneDecidesASampledText) {
  const Pair pair(GetParam());
  std::vector<Request> requests = pair.requests(32);
  for (Request& request : requests)
    request.sampling = {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.02, .seed = 11};
  const auto together = pair.engine({.drafter = kIndependent}).generate(requests, 3);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto alone = pair.engine({.drafter = kIndependent}).generate({&requests[i], 1});
    EXPECT_EQ(alone[0].tokens, together[i].tokens);
  }
}

/// poll() is called before every pass of the prompt and every step, so the time from one call to the next is all that a
/// step takes.
TEST(StageTimes, SumToTheStep) {
  const Pair pair({kernels::DType::kBFloat16});
  for (const EngineSpec& spec : {EngineSpec{}, EngineSpec{.drafter = kIndependent, .tree = "expansion(2,2)"}}) {
    Engine engine = pair.engine(spec);
    std::vector<Request> requests = pair.requests(200);
    requests.resize(1);
    std::vector<std::chrono::steady_clock::time_point> polled;
    polled.reserve(256);
    const RequestRecord record =
        engine.generate(requests, 1, [&] { polled.push_back(std::chrono::steady_clock::now()); }).front();
    const std::vector<StepRecord>& all = record.steps;
    ASSERT_GT(all.size(), 20U);
    ASSERT_GE(polled.size(), all.size());
    const auto first = polled[polled.size() - all.size()];
    std::int64_t stages = 0;  // of all steps but the last, after which nobody polls
    for (std::size_t i = 0; i + 1 < all.size(); ++i) stages += all[i].times.total_ns();
    const std::int64_t steps = std::chrono::duration_cast<std::chrono::nanoseconds>(polled.back() - first).count();
    EXPECT_LE(stages, steps);
    EXPECT_GE(static_cast<double>(stages), 0.97 * static_cast<double>(steps)) << spec.drafter;
  }
}

using kernels::DType;
constexpr Types kTypes[] = {{DType::kFloat32},
                            {DType::kBFloat16},
                            {DType::kInt8},
                            {DType::kBFloat16, DType::kBFloat16},
                            {DType::kBFloat16, DType::kInt8}};

INSTANTIATE_TEST_SUITE_P(DTypes, BundledPair, testing::ValuesIn(kTypes),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace specmoe
