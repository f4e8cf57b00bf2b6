#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/engine.h"
#include "core/logit_rows.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "tests/end_to_end/remembering_model.h"
#include "tests/support/every_third.h"
#include "tests/support/penalties.h"
#include "tests/support/renamed_model.h"
#include "tests/support/wrong_rules.h"

namespace specmoe {
namespace {

const std::string kModels = std::string(SPECMOE_SOURCE_ROOT) + "/experiments/models";
constexpr const char* kPrompt = "from ";  // where the pair disagrees, so that wrong rules show
constexpr int kTexts = 20'000;
constexpr int kLength = 3;  // tokens whose joint law is compared
/// Three tokens a position, so that the joint law has 27 bins.
constexpr SamplingParams kSampling = {.temperature = 1.0, .top_k = 3, .seed = 20};
/// A token that was emitted once becomes likelier, and less so the next time: a node's row hangs on the path to it.
constexpr SamplingParams kPenalised = {.temperature = 1.0,
                                       .top_k = 3,
                                       .repetition_penalty = 1.2,
                                       .presence_penalty = -3.0,
                                       .frequency_penalty = 2.0,
                                       .seed = 20};

using Text = std::vector<TokenId>;
using Law = std::map<Text, double>;

/// The bundled pair; loaded once, as rows are remembered from test to test.
struct Pair {
  Pair() {
    nn::LoadOptions options;
    options.dtype = kernels::DType::kFloat32;
    options.pool = std::make_shared<kernels::ThreadPool>(1);
    target = nn::load_model(kModels + "/target", options);
    drafter = nn::load_model(kModels + "/drafter", options);
    remembering_target = std::make_shared<RememberingModel>(target);
    remembering["drafter"] = std::make_shared<RememberingModel>(drafter);
    remembering["thinned"] = std::make_shared<RememberingModel>(nn::load_model(thinned.path(), options));
    prompt = nn::Tokenizer::from_file(kModels + "/target")->encode(kPrompt);
  }
  static const Pair& get() {
    static const Pair pair;
    return pair;
  }

  test::RenamedModel thinned{kModels + "/drafter", test::thinned_ids(kModels + "/drafter")};
  std::shared_ptr<LanguageModel> target, drafter, remembering_target;
  std::map<std::string, std::shared_ptr<LanguageModel>> remembering;  // drafters
  Text prompt;
};

EngineSpec speculative(const std::string& tree, const std::string& acceptance) {
  return {.drafter = "independent(path=drafter)", .tree = tree, .acceptance = acceptance, .allow_lossy = true};
}

/// The first tokens of `count` texts that differ in their sequence number alone. One token more than compared is asked
/// for, so that drafts reach to the last one compared and beyond.
std::vector<Text> sample(Engine& engine, int count, const SamplingParams& sampling = kSampling,
                         const std::shared_ptr<LogitsProcessor>& processor = nullptr) {
  std::vector<Request> requests(count);
  for (int i = 0; i < count; ++i) {
    requests[i].prompt = Pair::get().prompt;
    requests[i].sampling = sampling;
    requests[i].sampling.sequence = i;
    requests[i].logits_processor = processor;
    requests[i].max_new_tokens = kLength + 1;
  }
  std::vector<Text> texts;
  for (const RequestRecord& record : engine.generate(requests, 32)) {
    texts.emplace_back(record.tokens.begin(), record.tokens.begin() + kLength);
  }
  return texts;
}

Engine remembering_engine(const EngineSpec& spec, EngineParts parts = {}) {
  const Pair& pair = Pair::get();
  return {pair.remembering_target, spec,
          [&pair](const std::string& path, const std::string&) { return pair.remembering.at(path); }, std::move(parts)};
}

/// Adds the probability of every continuation of `text` up to kLength tokens, straight from the target's logits.
void enumerate(const Text& text, double mass, const SamplingParams& sampling, LogitsProcessor* processor, Law& law) {
  const Pair& pair = Pair::get();
  if (text.size() == kLength) {
    law[text] = mass;
    return;
  }
  Text whole = pair.prompt;
  whole.insert(whole.end(), text.begin(), text.end());
  const auto cache = pair.target->new_cache(static_cast<int>(whole.size()));
  prefill(*pair.target, *cache, std::span(whole).first(whole.size() - 1));
  const std::int32_t on_last = -1;
  const RowBlock block{cache.get(), std::span(whole).last(1), {&on_last, 1}, LogitsWanted::kLast};
  ForwardResult result;
  pair.target->forward({&block, 1}, result);
  std::vector<float> probs(result.vocab);
  std::vector<std::int32_t> scratch;
  const std::vector<double> penalised = test::penalised(result.logits_row(0), pair.prompt, text, sampling);
  std::vector<float> logits(penalised.begin(), penalised.end());
  if (processor != nullptr) processor->process(pair.prompt, text, logits);
  logits_to_probs(logits, TokenTree::kRoot, sampling, probs, scratch);
  for (TokenId x = 0; x < result.vocab; ++x) {
    if (probs[x] == 0.0F) continue;
    Text longer = text;
    longer.push_back(x);
    enumerate(longer, mass * probs[x], sampling, processor, law);
  }
}

Law law_of(const SamplingParams& sampling, LogitsProcessor* processor = nullptr) {
  Law all;
  enumerate({}, 1.0, sampling, processor, all);
  return all;
}

const Law& exact_law() {
  static const Law law = law_of(kSampling);
  return law;
}

const Law& penalised_law() {
  static const Law law = law_of(kPenalised);
  return law;
}

const Law& processed_law() {
  static const Law law = law_of(kSampling, std::make_shared<test::EveryThird>().get());
  return law;
}

/// Total variation distance of the texts' frequencies from the exact law.
double distance(const std::vector<Text>& texts, const Law& law = exact_law()) {
  Law difference = law;
  for (const Text& text : texts) difference[text] -= 1.0 / static_cast<double>(texts.size());
  double sum = 0.0;
  for (const auto& [text, value] : difference) sum += std::abs(value);
  return sum / 2.0;
}

/// What samples of the law itself stay below but once in a million.
double bound() {
  const double bins = static_cast<double>(exact_law().size());
  return 0.5 * std::sqrt(bins / kTexts) + std::sqrt(std::log(1e6) / (2.0 * kTexts));
}

/// Judges float drafts with a rule that is written for doubles.
class InDoubles final : public AcceptancePolicy {
 public:
  explicit InDoubles(std::shared_ptr<AcceptancePolicy> rule) : rule_(std::move(rule)) {}
  LawSet lossless_laws() const override { return {}; }
  bool judges_trees() const override { return true; }

  void judge(Draft<float>& draft, ProbRows<float>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    Draft<double> wide;
    wide.reset(draft.tree.token(TokenTree::kRoot), target.vocab());
    wide.tree = draft.tree;
    wide.law = draft.law;
    wide.row_of = draft.row_of;
    for (int row = 0; row < draft.rows.size(); ++row) add(draft.rows.row(row), wide.rows);
    StoredRows<double> wide_target;
    wide_target.reset(target.vocab());
    for (NodeId n = 0; n < draft.tree.size(); ++n) add(target.row(n), wide_target);
    rule_->judge(wide, wide_target, uniforms, verdict);
  }
  void judge(Draft<double>& draft, ProbRows<double>& target, UniformSource<double>& uniforms,
             Verdict& verdict) const override {
    rule_->judge(draft, target, uniforms, verdict);
  }

 private:
  static void add(const ProbRow<float>& from, StoredRows<double>& rows) {
    const int index = rows.add_dense();
    for (TokenId x = 0; x < from.vocab(); ++x) rows.dense(index)[x] = static_cast<double>(from[x]);
  }

  std::shared_ptr<AcceptancePolicy> rule_;
};

std::shared_ptr<AcceptancePolicy> wrong_rule(const std::string& name) {
  for (const testing::WrongRule& rule : testing::wrong_rules()) {
    if (rule.name == name) return std::make_shared<InDoubles>(rule.policy);
  }
  fail("no wrong rule is called ", name);
}

/// The comparison can tell: 27 texts, none of them with most of the mass.
TEST(Distribution, TheLawIsWide) {
  double most = 0.0;
  double sum = 0.0;
  for (const auto& [text, mass] : exact_law()) {
    most = std::max(most, mass);
    sum += mass;
  }
  EXPECT_EQ(exact_law().size(), 27U);
  EXPECT_LT(most, 0.5);
  EXPECT_NEAR(sum, 1.0, 1e-5);
}

/// The comparison can tell the laws with penalties and with a logits processor from the one without.
TEST(Distribution, ChangedLogitsHaveAnotherLaw) {
  for (const Law& law : {penalised_law(), processed_law()}) {
    EXPECT_EQ(law.size(), 27U);
    double apart = 0.0;
    Law difference = exact_law();
    for (const auto& [text, mass] : law) difference[text] -= mass;
    for (const auto& [text, value] : difference) apart += std::abs(value) / 2.0;
    EXPECT_GT(apart, 2.0 * bound());
  }
  Engine engine = remembering_engine({});
  EXPECT_LT(distance(sample(engine, kTexts, kPenalised), penalised_law()), bound());
  EXPECT_LT(distance(sample(engine, kTexts, kSampling, std::make_shared<test::EveryThird>()), processed_law()),
            bound());
}

TEST(Distribution, RememberedRowsAreTheModelsOwn) {
  const Pair& pair = Pair::get();
  const EngineSpec spec = speculative("expansion(2,2)", "multi_step");
  Engine engine(pair.target, spec, [&pair](const std::string&, const std::string&) { return pair.drafter; });
  Engine remembering = remembering_engine(spec);
  EXPECT_EQ(sample(engine, 48), sample(remembering, 48));
}

TEST(Distribution, PlainDecodingSamplesTheLaw) {
  Engine engine = remembering_engine({});
  EXPECT_LT(distance(sample(engine, kTexts)), bound());
}

struct Method {
  std::string tree, acceptance;
};
void PrintTo(const Method& method, std::ostream* out) { *out << method.tree << " " << method.acceptance; }

class Lossless : public ::testing::TestWithParam<Method> {};
TEST_P(Lossless, EmitsTheTargetsLaw) {
  Engine engine = remembering_engine(speculative(GetParam().tree, GetParam().acceptance));
  ASSERT_TRUE(engine.lossless());
  EXPECT_LT(distance(sample(engine, kTexts)), bound());
}
TEST_P(Lossless, EmitsTheTargetsLawWithPenalties) {
  Engine engine = remembering_engine(speculative(GetParam().tree, GetParam().acceptance));
  EXPECT_LT(distance(sample(engine, kTexts, kPenalised), penalised_law()), bound());
}
TEST_P(Lossless, EmitsTheTargetsLawWithALogitsProcessor) {
  Engine engine = remembering_engine(speculative(GetParam().tree, GetParam().acceptance));
  const auto texts = sample(engine, kTexts, kSampling, std::make_shared<test::EveryThird>());
  EXPECT_LT(distance(texts, processed_law()), bound());
}
INSTANTIATE_TEST_SUITE_P(Distribution, Lossless,
                         ::testing::Values(Method{"chain(2)", "token"}, Method{"chain(3)", "block"},
                                           Method{"chain(2)", "naive"}, Method{"expansion(2,2)", "multi_step"},
                                           Method{"expansion(2,1)", "greedy_ot"},
                                           Method{"expansion(2,2,law=iid)", "k_seq"},
                                           Method{"expansion(2,1)", "traversal"},
                                           Method{"expansion(2,2,law=iid)", "multi_step"}));

/// What the drafter cannot say is the target's alone.
TEST(Distribution, ADrafterOfFewerTokensKeepsTheLaw) {
  for (const auto& [tree, acceptance] :
       {Method{"chain(2)", "token"}, Method{"chain(3)", "block"}, Method{"expansion(2,2)", "multi_step"}}) {
    EngineSpec spec = speculative(tree, acceptance);
    spec.drafter = "independent(path=thinned,vocabulary=shared)";
    Engine engine = remembering_engine(spec);
    EXPECT_LT(distance(sample(engine, kTexts)), bound()) << tree;
  }
}

/// Controls: the same comparison must reject what is known not to keep the law.
class Lossy : public ::testing::TestWithParam<Method> {};
TEST_P(Lossy, LeavesTheTargetsLaw) {
  Engine engine = remembering_engine(speculative(GetParam().tree, GetParam().acceptance));
  ASSERT_FALSE(engine.lossless());
  EXPECT_GT(distance(sample(engine, kTexts)), bound());
}
INSTANTIATE_TEST_SUITE_P(Distribution, Lossy,
                         ::testing::Values(Method{"chain(3)", "typical"}, Method{"chain(3)", "lenient(lenience=0.5)"}));

class Wrong : public ::testing::TestWithParam<Method> {};
TEST_P(Wrong, LeavesTheTargetsLaw) {
  EngineSpec spec = speculative(GetParam().tree, "");
  Engine engine = remembering_engine(spec, {.acceptance = wrong_rule(GetParam().acceptance)});
  EXPECT_GT(distance(sample(engine, kTexts)), bound());
}
INSTANTIATE_TEST_SUITE_P(Distribution, Wrong,
                         ::testing::Values(Method{"chain(2)", "recovers_from_the_whole_target"},
                                           Method{"chain(2)", "only_the_rejected_token_is_removed"},
                                           Method{"chain(2)", "accepts_when_more_likely"},
                                           Method{"chain(2)", "noise_of_the_draft_reused"},
                                           Method{"expansion(2)", "draws_without_repeats_judged_as_independent"}));

}  // namespace
}  // namespace specmoe
