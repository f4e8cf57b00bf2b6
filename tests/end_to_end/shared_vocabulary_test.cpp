#include <gtest/gtest.h>

#include <numeric>

#include "core/engine.h"
#include "core/metrics.h"
#include "core/nn/model_loader.h"
#include "core/nn/tokenizer.h"
#include "core/nn/translated_model.h"
#include "tests/support/renamed_model.h"

namespace specmoe {
namespace {

const std::string kModels = std::string(SPECMOE_SOURCE_ROOT) + "/experiments/models";
const std::string kDrafter = kModels + "/drafter";

using Ids = std::vector<TokenId>;

/// The bundled pair.
struct Pair {
  explicit Pair(kernels::DType dtype) {
    options.dtype = dtype;
    options.pool = std::make_shared<kernels::ThreadPool>(2);
    target = nn::load_model(kModels + "/target", options);
    tokenizer = nn::Tokenizer::from_file(kModels + "/target");
  }
  std::vector<RequestRecord> run(const EngineSpec& spec, const SamplingParams& sampling) const {
    std::vector<Request> requests;
    for (const char* prompt :
         {"Problem: Maria buys 5 maps at 6 coins each and 4 tickets at 4 coins each. Maria pays with "
          "63 coins. How many coins come back?\nSolution:",
          "def read(self, size=-1):\n    \"\"\"", "Größe – 日本"}) {
      Request& request = requests.emplace_back();
      request.prompt = tokenizer->encode(prompt);
      request.sampling = sampling;
      request.max_new_tokens = 48;
    }
    return Engine(target, spec, nn::draft_loader(options)).generate(requests, 2);
  }

  nn::LoadOptions options;
  std::shared_ptr<LanguageModel> target;
  std::shared_ptr<const nn::Tokenizer> tokenizer;
};

std::string independent(const std::string& path, const std::string& vocabulary) {
  return "independent(path=" + path + ",vocabulary=" + vocabulary + ")";
}

double tau(const std::vector<RequestRecord>& records) {
  Counts counts;
  for (const RequestRecord& record : records) counts.add(record);
  counts.check_identities();
  return derive(counts, 1).tau;
}

void expect_same_run(const RequestRecord& a, const RequestRecord& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.from_draft, b.from_draft);
  EXPECT_EQ(a.unique_experts, b.unique_experts) << "which all drafted tokens have a part in";
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].drafted, b.steps[i].drafted);
    EXPECT_EQ(a.steps[i].accepted, b.steps[i].accepted);
  }
}

class SharedVocabulary : public testing::TestWithParam<kernels::DType> {};

/// The same drafter under other ids drafts the same, token by token.
TEST_P(SharedVocabulary, OtherIdsChangeNothing) {
  const Pair pair(GetParam());
  const test::RenamedModel renamed(kDrafter, test::shuffled_ids(kDrafter));
  const std::vector<SamplingParams> kinds = {
      {},
      {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.02, .seed = 11},
      {.temperature = 1.0, .repetition_penalty = 1.2, .seed = 3}};
  for (const SamplingParams& sampling : kinds) {
    for (const char* tree : {"chain(4)", "expansion(2,2)", "best_first", "adaptive_chain"}) {
      const EngineSpec same = {.drafter = independent(kDrafter, "same"), .tree = tree, .allow_lossy = true};
      const EngineSpec shared = {.drafter = independent(renamed.path(), "shared"), .tree = tree, .allow_lossy = true};
      const auto as_is = pair.run(same, sampling);
      const auto translated = pair.run(shared, sampling);
      for (std::size_t i = 0; i < as_is.size(); ++i) expect_same_run(as_is[i], translated[i]);
      EXPECT_EQ(tau(as_is), tau(translated));
      EXPECT_GT(tau(as_is), 1.2) << tree;
    }
  }
  EXPECT_THROW(pair.run({.drafter = independent(renamed.path(), "other")}, {}), Error);
}

/// Greedy text is plain text, and drafts are as good as the tokens that are left allow.
TEST_P(SharedVocabulary, AThinnedDrafterKeepsGreedyTextPlain) {
  const Pair pair(GetParam());
  const test::RenamedModel thinned(kDrafter, test::thinned_ids(kDrafter));
  const auto plain = pair.run({}, {});
  const double whole = tau(pair.run({.drafter = independent(kDrafter, "same")}, {}));
  const std::string shared = independent(thinned.path(), "shared");
  const std::string merged = "merged(" + shared + ", " + independent(kDrafter, "same") + ")";
  for (const std::string& drafter : {shared, merged}) {
    for (const char* tree : {"chain(4)", "expansion(2,2,1)"}) {
      const auto records = pair.run({.drafter = drafter, .tree = tree, .allow_lossy = true}, {});
      for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(records[i].tokens, plain[i].tokens) << drafter << tree;
      EXPECT_GT(tau(records), 1.1);
    }
  }
  EXPECT_LT(tau(pair.run({.drafter = shared}, {})), whole);
}

INSTANTIATE_TEST_SUITE_P(DTypes, SharedVocabulary,
                         testing::Values(kernels::DType::kFloat32, kernels::DType::kBFloat16, kernels::DType::kInt8),
                         [](const auto& info) { return std::string(kernels::dtype_name(info.param)); });

/// Row by row, to the bit.
TEST(SharedVocabularyRows, OfOtherIdsAreTheModelsOwn) {
  const Pair pair(kernels::DType::kBFloat16);
  const test::RenamedModel renamed(kDrafter, test::shuffled_ids(kDrafter));
  const auto drafter = nn::load_model(kDrafter, pair.options);
  const auto other = nn::load_model(renamed.path(), pair.options);
  const auto tokenizer = nn::Tokenizer::from_file(renamed.path());
  nn::TranslatedModel translated(
      other, nn::SharedVocabulary({*pair.tokenizer, pair.target->info()}, {*tokenizer, other->info()}));
  const Ids text = pair.tokenizer->encode("Ada has 3 apples and buys 14 more.");
  Ids parents(text.size());
  std::iota(parents.begin(), parents.end(), -1);
  ForwardResult wanted, got;
  const auto own_cache = drafter->new_cache(64);
  const auto cache = translated.new_cache(64);
  const RowBlock own{own_cache.get(), text, parents};
  const RowBlock block{cache.get(), text, parents};
  drafter->forward({&own, 1}, wanted);
  translated.forward({&block, 1}, got);
  EXPECT_EQ(got.logits, wanted.logits);
  EXPECT_EQ(got.argmax, wanted.argmax);
}

}  // namespace
}  // namespace specmoe
