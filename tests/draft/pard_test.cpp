#include <gtest/gtest.h>

#include "core/engine.h"
#include "tests/support/tapped.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

const ToyOptions kTarget{};
const ToyOptions kDrafter{.own_seed = 99, .agreement = 0.75};
const TokenId kMask = kDrafter.vocab - 1;

/// A toy that counts its passes, and may have no mask token.
class CountingModel final : public LanguageModel {
 public:
  explicit CountingModel(const ToyOptions& options, bool masks = true)
      : toy_(make_toy_model(options)), info_(toy_->info()) {
    if (!masks) info_.mask_token.reset();
  }
  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<KVCache> new_cache(int capacity, std::optional<int> text) const override {
    return toy_->new_cache(capacity, text);
  }
  void forward(std::span<const RowBlock> blocks, ForwardResult& result) override {
    ++passes;
    toy_->forward(blocks, result);
  }

  int passes = 0;

 private:
  std::shared_ptr<LanguageModel> toy_;
  ModelInfo info_;
};

std::vector<double> row_after(std::vector<TokenId> text, int masks) {
  text.insert(text.end(), static_cast<std::size_t>(masks), kMask);
  return test::toy_probs(kDrafter, text);
}

/// Depth i is proposed for from behind i masks, whatever was drafted, and masks leave nothing in the cache.
TEST(Pard, EachDepthHasTheRowOfItsMask) {
  const auto model = std::make_shared<CountingModel>(kDrafter);
  const auto drafter = drafters().create("pard(path=toy,depth=4)");
  const auto target = make_toy_model(kTarget);
  drafter->attach({target, [&](const std::string&, const std::string&) { return model; }});
  std::vector<TokenId> text = {3, 1, 4, 1, 5};
  const auto tree = tree_policies().create("expansion(2,1,2,1,1)");
  const auto state = drafter->open(text, {}, 64);
  model->passes = 0;
  LogitChanges changes;
  const SamplingParams sampling{.temperature = 1.0};
  for (const int accepted : {0, 3, 1, 4}) {
    PhiloxUniforms uniforms(7, 0, text.size());
    Draft<float> draft;
    draft.reset(text.back(), kTarget.vocab);
    draft.law = effective_law(*drafter, *tree, sampling);
    GrowRequest request{state.get(), &draft, &sampling, &changes, &uniforms, tree->max_depth()};
    GrowWorkspace workspace;
    grow({&request, 1}, *drafter, *tree, workspace);
    EXPECT_EQ(draft.tree.max_depth(), 4);
    EXPECT_EQ(model->passes, 1);
    model->passes = 0;
    for (NodeId node = 1; node < draft.tree.size(); ++node) {
      const std::vector<double> expected = row_after(text, draft.tree.depth(node) - 1);
      for (TokenId x = 0; x < kTarget.vocab; ++x) ASSERT_NEAR(draft.row(node)[x], expected[x], 1e-6) << "node " << node;
    }
    Verdict verdict{{}, static_cast<TokenId>(accepted + 2)};
    for (NodeId node = TokenTree::kRoot; static_cast<int>(verdict.accepted.size()) < accepted;) {
      node = draft.tree.first_child(node);
      verdict.accepted.push_back(node);
      text.push_back(draft.tree.token(node));
    }
    text.push_back(verdict.next);
    drafter->commit(*state, draft.tree, verdict, {});
  }
}

/// Masks come to the end of the drafter's context before the text does, and then the text does.
TEST(Pard, DraftsToTheEndOfItsContext) {
  Request request;
  request.prompt = {1, 2, 3};
  request.max_new_tokens = 60;
  for (const double temperature : {0.0, 1.0}) {
    request.sampling = {.temperature = temperature, .seed = 3};
    for (const char* tree : {"chain(6)", "expansion(2,2,1)", "best_first(nodes=12)"}) {
      Engine engine(make_toy_model(kTarget), {.drafter = "pard(path=toy,depth=5)", .tree = tree, .allow_lossy = true},
                    [](const std::string&, const std::string&) {
                      ToyOptions small = kDrafter;
                      small.max_positions = 40;
                      return make_toy_model(small);
                    });
      const RequestRecord record = engine.generate({&request, 1})[0];
      ASSERT_EQ(record.tokens.size(), 60U);
      if (temperature == 0.0) {
        EXPECT_EQ(record.tokens, test::toy_greedy(kTarget, request.prompt, 60)) << tree;
      }
      EXPECT_GT(record.steps.front().drafted, 0) << tree;
      EXPECT_EQ(record.steps.back().drafted, 0) << tree;
    }
  }
}

TEST(Pard, WhatDoesNotFitIsRefused) {
  const auto refused = [](const std::string& spec, const std::shared_ptr<LanguageModel>& model) {
    try {
      drafters().create(spec)->attach(
          {make_toy_model(kTarget), [&](const std::string&, const std::string&) { return model; }});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused("pard(path=toy)", make_toy_model(kDrafter)), "");
  EXPECT_NE(refused("pard(path=toy)", std::make_shared<CountingModel>(kDrafter, false)).find("names no pard_token"),
            std::string::npos);
  EXPECT_NE(refused("pard(path=toy)", make_toy_model({.vocab = 18})).find("has 18 tokens, the target's 17"),
            std::string::npos);
  for (const char* depth : {"0", "65"}) {
    EXPECT_NE(refused(concat("pard(path=toy,depth=", depth, ")"), nullptr).find("depth must be from 1 to 64"),
              std::string::npos);
  }
  EXPECT_NE(refused("pard", nullptr).find("path"), std::string::npos);
}

}  // namespace
}  // namespace specmoe
