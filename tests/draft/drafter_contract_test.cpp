#include <gtest/gtest.h>

#include <map>

#include "core/drafter.h"
#include "core/engine.h"
#include "core/grow.h"
#include "core/tree_policy.h"
#include "tests/support/every_third.h"
#include "tests/support/step_counts.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::Tapped;
using test::ToyOptions;

const std::string kTokenizers = SPECMOE_TEST_DATA "/golden/tokenizer";
const ToyOptions kTarget{.path = kTokenizers + "/gpt2.gguf"};
const ToyOptions kDrafter{.own_seed = 99, .agreement = 0.75};
/// Its tokens are the target's and more, under other ids.
const ToyOptions kForeignDrafter{.vocab = 40, .own_seed = 99, .agreement = 0.75, .path = kTokenizers + "/smollm2.gguf"};
const std::string kSharedVocabulary = "independent(path=foreign,vocabulary=shared)";

std::shared_ptr<LanguageModel> load_toy(const std::string& path, const std::string&) {
  return make_toy_model(path == "foreign" ? kForeignDrafter : kDrafter);
}

/// A spec for every registered drafter that needs parameters. A new drafter with required ones adds its line here.
std::string example_spec(const std::string& name) {
  static const std::map<std::string, std::string> kExamples = {
      {"dflash", "dflash(path=block)"},
      {"eagle", "eagle(path=toy)"},
      {"independent", "independent(path=toy)"},
      {"medusa", "medusa(path=toy)"},
      {"mtp", "mtp(path=toy)"},
      {"pard", "pard(path=toy,depth=3)"},
      {"merged", "merged(eagle(path=wide), independent(path=toy), eagle(path=toy))"}};
  const auto found = kExamples.find(name);
  return found != kExamples.end() ? found->second : name;
}

std::shared_ptr<Drafter> attached(const std::string& name) {
  std::shared_ptr<Drafter> drafter = drafters().create(example_spec(name));
  drafter->attach({make_toy_model(kTarget), load_toy});
  return drafter;
}

class DrafterContract : public testing::TestWithParam<std::string> {};

/// One draft over `tree`, as the engine makes it.
struct Drafted {
  Draft<float> draft;
  SamplingParams sampling;
};

Drafted draft_once(Drafter& drafter, DraftState& state, TokenId root, const std::string& tree_spec, double temperature,
                   std::uint64_t step) {
  Drafted drafted;
  drafted.sampling = {.temperature = temperature, .seed = 5};
  const auto tree = tree_policies().create(tree_spec);
  PhiloxUniforms uniforms(5, 0, step);
  drafted.draft.reset(root, kTarget.vocab);
  drafted.draft.law = effective_law(drafter, *tree, drafted.sampling);
  LogitChanges changes;
  GrowRequest request{&state, &drafted.draft, &drafted.sampling, &changes, &uniforms, tree->max_depth()};
  GrowWorkspace workspace;
  grow({&request, 1}, drafter, *tree, workspace);
  return drafted;
}

void expect_same(Draft<float>& a, Draft<float>& b) {
  ASSERT_EQ(std::vector<TokenId>(a.tree.tokens().begin(), a.tree.tokens().end()),
            std::vector<TokenId>(b.tree.tokens().begin(), b.tree.tokens().end()));
  for (NodeId n = 1; n < a.tree.size(); ++n) {
    for (TokenId x = 0; x < kTarget.vocab; ++x) ASSERT_EQ(a.row(n)[x], b.row(n)[x]) << "node " << n;
  }
}

/// Whatever was accepted or rejected before, a drafter proposes what it would propose after reading the text afresh.
TEST_P(DrafterContract, RollbackEqualsAFreshStart) {
  const std::vector<TokenId> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  for (double temperature : {0.0, 1.0}) {
    for (const char* tree : {"chain(4)", "expansion(2,2)", "expansion(3,1,2)"}) {
      const std::shared_ptr<Drafter> drafter = attached(GetParam());
      std::vector<TokenId> text = prompt;
      Tapped target(make_toy_model(kTarget), *drafter);
      std::unique_ptr<DraftState> state = target.open(*drafter, text);
      for (std::uint64_t step = 0; step < 12; ++step) {
        Drafted one = draft_once(*drafter, *state, text.back(), tree, temperature, step);
        const std::shared_ptr<Drafter> other = attached(GetParam());
        const std::unique_ptr<DraftState> fresh = Tapped(make_toy_model(kTarget), *other).open(*other, text);
        Drafted two = draft_once(*other, *fresh, text.back(), tree, temperature, step);
        expect_same(one.draft, two.draft);
        Verdict verdict;
        for (NodeId n = TokenTree::kRoot; verdict.accepted.size() < step % 4;) {
          n = one.draft.tree.first_child(n);
          if (n == TokenTree::kNone) break;
          if (step % 2 == 1 && one.draft.tree.next_sibling(n) != TokenTree::kNone) n = one.draft.tree.next_sibling(n);
          verdict.accepted.push_back(n);
        }
        verdict.next = static_cast<TokenId>((step * 7) % kTarget.vocab);
        target.commit(*drafter, *state, one.draft.tree, verdict);
        for (NodeId n : verdict.accepted) text.push_back(one.draft.tree.token(n));
        text.push_back(verdict.next);
      }
    }
  }
}

TEST_P(DrafterContract, ABatchDraftsWhatEachSequenceDraftsAlone) {
  const std::vector<std::vector<TokenId>> prompts = {{1, 2, 3, 1, 2}, {4}, {7, 7, 7, 7, 7, 7}};
  const auto tree = tree_policies().create("expansion(2,2)");
  const std::shared_ptr<Drafter> together = attached(GetParam());
  std::vector<std::unique_ptr<DraftState>> states;
  std::vector<Draft<float>> drafts(prompts.size());
  std::vector<PhiloxUniforms> uniforms;
  LogitChanges changes;
  std::vector<GrowRequest> requests;
  const SamplingParams sampling{.temperature = 1.0, .seed = 5};
  for (const auto& prompt : prompts)
    states.push_back(Tapped(make_toy_model(kTarget), *together).open(*together, prompt));
  uniforms.assign(prompts.size(), PhiloxUniforms(5, 0, 0));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    drafts[i].reset(prompts[i].back(), kTarget.vocab);
    drafts[i].law = effective_law(*together, *tree, sampling);
    requests.push_back({states[i].get(), &drafts[i], &sampling, &changes, &uniforms[i], tree->max_depth()});
  }
  GrowWorkspace workspace;
  grow(requests, *together, *tree, workspace);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::shared_ptr<Drafter> alone = attached(GetParam());
    const auto state = Tapped(make_toy_model(kTarget), *alone).open(*alone, prompts[i]);
    Drafted drafted = draft_once(*alone, *state, prompts[i].back(), "expansion(2,2)", 1.0, 0);
    expect_same(drafts[i], drafted.draft);
  }
}

/// Greedy text never depends on the drafter, whatever the topology.
TEST_P(DrafterContract, GreedyTextIsThePlainText) {
  Request request;
  request.prompt = {1, 2, 3, 1, 2, 3, 1};
  request.max_new_tokens = 60;
  for (const std::string& tree : tree_policies().names()) {
    Engine engine(make_toy_model(kTarget), {.drafter = example_spec(GetParam()), .tree = tree, .allow_lossy = true},
                  load_toy);
    EXPECT_EQ(engine.generate({&request, 1})[0].tokens, test::toy_greedy(kTarget, request.prompt, 60)) << tree;
  }
}

/// Over a text that is there already it drafts what it drafts in a run: from the text alone.
TEST_P(DrafterContract, AReplayCountsWhatARunCounts) {
  std::vector<Request> requests(3);
  requests[0].prompt = {1, 2, 3, 1, 2, 3, 1};
  requests[1].prompt = {4};
  requests[2].prompt = {7, 7, 7};
  requests[1].stop_tokens = {test::toy_greedy(kTarget, {4}, 30).back()};
  requests[2].logits_processor = std::make_shared<test::EveryThird>();
  for (Request& request : requests) request.max_new_tokens = 60;
  const auto plain = Engine(make_toy_model(kTarget), {}).generate(requests);
  for (const std::string& tree : tree_policies().names()) {
    Engine engine(make_toy_model(kTarget), {.drafter = example_spec(GetParam()), .tree = tree, .allow_lossy = true},
                  load_toy);
    const auto run = engine.generate(requests, 3);
    const auto replayed = engine.replay(requests, plain);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      auto counts = test::step_counts(run[i]);
      for (auto& step : counts) step.back() = step.front() + 1;  // rows of the pass: those of a batch, in the run
      EXPECT_EQ(test::step_counts(replayed[i]), counts) << tree << " request " << i;
    }
  }
}

/// Who proposes by logits changes them as the target's are changed, at every node by the node's own text; who proposes
/// tokens is asked as ever.
TEST_P(DrafterContract, RowsAreChangedByTheNodesOwnText) {
  const std::shared_ptr<Drafter> drafter = attached(GetParam());
  const std::vector<TokenId> prompt = {1, 2, 3, 1, 2};
  for (const std::string& tree : tree_policies().names()) {
    for (const double temperature : {0.0, 1.0}) {
      const auto draft_with = [&](std::shared_ptr<LogitsProcessor> processor) {
        return test::first_draft(make_toy_model(kTarget), *drafter, tree, prompt,
                                 {.temperature = temperature, .seed = 5}, std::move(processor));
      };
      Draft<float> draft = draft_with(std::make_shared<test::EveryThird>());
      if (drafter->deterministic()) {
        Draft<float> as_ever = draft_with(nullptr);
        expect_same(draft, as_ever);
        continue;
      }
      EXPECT_GT(draft.tree.size(), 1) << tree;
      for (NodeId node = 1; node < draft.tree.size(); ++node) {
        std::vector<TokenId> text = prompt;
        for (NodeId n = draft.tree.parent(node); n != TokenTree::kRoot; n = draft.tree.parent(n)) {
          text.insert(text.begin() + static_cast<std::ptrdiff_t>(prompt.size()), draft.tree.token(n));
        }
        EXPECT_TRUE(test::EveryThird::allows(text, draft.tree.token(node))) << tree << " node " << node;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, DrafterContract, testing::ValuesIn(drafters().names()),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SharedVocabulary, DrafterContract, testing::Values(kSharedVocabulary),
                         [](const auto&) { return "independent"; });

}  // namespace
}  // namespace specmoe
