#include <gtest/gtest.h>

#include "core/drafter.h"
#include "core/engine.h"
#include "core/nn/tokenizer.h"
#include "kernels/check.h"
#include "tests/support/toy_model.h"

namespace specmoe {
namespace {

using test::make_toy_model;
using test::ToyOptions;

const std::string kTokenizers = SPECMOE_TEST_DATA "/golden/tokenizer";

/// What assembling an engine with this drafter of `drafter` for `target` says.
std::string error_of(const std::string& spec, const ToyOptions& target, const ToyOptions& drafter) {
  try {
    Engine(make_toy_model(target), {.drafter = spec},
           [&](const std::string&, const std::string&) { return make_toy_model(drafter); });
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  return "";
}

void expect_says(const std::string& error, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(error.find(part), std::string::npos) << "'" << error << "': " << part;
}

TEST(Independent, AnotherVocabularyIsRefusedWithTheWayOut) {
  const std::string same = "independent(path=toy)";
  EXPECT_EQ(error_of(same, {.vocab = 17}, {.vocab = 17}), "");
  expect_says(error_of(same, {.vocab = 17}, {.vocab = 40}), {"40", "17", "vocabulary=shared"});
  expect_says(error_of("independent(path=toy,vocabulary=mixed)", {}, {}), {"same or shared", "'mixed'"});
}

TEST(Independent, SharingNeedsBothTokenizers) {
  const std::string shared = "independent(path=toy,vocabulary=shared)";
  const ToyOptions target = {.vocab = 17, .path = kTokenizers + "/gpt2.gguf"};
  const ToyOptions drafter = {.vocab = 40, .path = kTokenizers + "/smollm2.gguf"};
  const std::string without = SPECMOE_TEST_DATA "/golden/models/mixtral_a";
  EXPECT_EQ(error_of(shared, target, drafter), "");
  expect_says(error_of(shared, {.path = without}, drafter), {"target", without, "tokenizer.json"});
  expect_says(error_of(shared, target, {.path = without}), {"drafter", without, "tokenizer.json"});
  expect_says(error_of(shared, {}, drafter), {"target", "'toy'", "tokenizer.json"});
  // The drafter has the first letters alone: it cannot even say that something is unknown.
  expect_says(error_of(shared, target, {.vocab = 4, .path = drafter.path}), {"independent: ", "U+FFFD"});
}

/// A text may be as long as the drafter's context in the drafter's own tokens, begin token included; then it proposes
/// nothing, and the text goes on.
TEST(Independent, ATextThatOutgrowsTheDrafterInItsOwnTokensGoesOn) {
  ToyOptions target = {.vocab = 700, .max_positions = 400, .path = kTokenizers + "/gpt2.gguf"};
  ToyOptions drafter = {.vocab = 550, .max_positions = 90, .path = kTokenizers + "/mixtral.gguf"};
  Request request;
  request.prompt = {400, 401, 402};
  request.max_new_tokens = 120;
  for (const std::string& spec :
       {std::string("independent(path=toy,vocabulary=shared)"),
        std::string("merged(independent(path=toy,vocabulary=shared), independent(path=target))")}) {
    for (const char* tree : {"chain(3)", "expansion(2,2)"}) {
      Engine engine(make_toy_model(target), {.drafter = spec, .tree = tree, .allow_lossy = true},
                    [&](const std::string& path, const std::string&) {
                      return make_toy_model(path == "target" ? target : drafter);
                    });
      for (int seed = 0; seed < 3; ++seed) {
        const double temperature = seed == 0 ? 0.0 : 1.0;
        request.sampling = {.temperature = temperature, .seed = static_cast<std::uint64_t>(seed)};
        const RequestRecord record = engine.generate({&request, 1})[0];
        ASSERT_EQ(record.tokens.size(), 120U);
        if (temperature == 0.0) {
          EXPECT_EQ(record.tokens, test::toy_greedy(target, request.prompt, 120));
        }
        EXPECT_GT(record.steps.front().drafted, 0);
        if (spec[0] == 'i') {
          EXPECT_EQ(record.steps.back().drafted, 0);
        }
      }
    }
  }
  request.prompt.assign(60, 699);
  Engine engine(make_toy_model(target), {.drafter = "independent(path=toy,vocabulary=shared)"},
                [&](const std::string&, const std::string&) { return make_toy_model(drafter); });
  EXPECT_THROW(engine.generate({&request, 1}), Error) << "more than 90 of the drafter's tokens";
}

/// Where one node of a level does not fit, none of the level is computed, and nothing can hang on it later on.
TEST(Independent, ALevelThatDoesNotFitEndsTheDraft) {
  const ToyOptions target = {.vocab = 700, .path = kTokenizers + "/gpt2.gguf"};
  const ToyOptions drafter = {.vocab = 550, .max_positions = 20, .path = kTokenizers + "/mixtral.gguf"};
  const std::shared_ptr<Drafter> shared = drafters().create("independent(path=toy,vocabulary=shared)");
  shared->attach(
      {make_toy_model(target), [&](const std::string&, const std::string&) { return make_toy_model(drafter); }});
  const auto tokenizer = nn::Tokenizer::from_file(target.path);
  const TokenId letter = *tokenizer->id_of("A");
  TokenId longest = letter;
  for (TokenId id = 0; id < 700; ++id) {
    if (tokenizer->token_bytes(id).size() > tokenizer->token_bytes(longest).size()) longest = id;
  }
  const std::vector<TokenId> prompt(15, letter);
  const auto state = shared->open(prompt, {}, 64);
  const SamplingParams sampling{.temperature = 1.0};
  LogitChanges unchanged;
  PhiloxUniforms uniforms(1, 0, 0);
  Draft<float> draft;
  draft.reset(letter, 700);
  const auto proposes = [&](std::vector<NodeId> frontier) {
    std::vector<Proposal> proposals(frontier.size());
    const ProposeRequest request{.state = state.get(),
                                 .draft = &draft,
                                 .frontier = frontier,
                                 .sampling = &sampling,
                                 .changes = &unchanged,
                                 .uniforms = &uniforms,
                                 .proposals = &proposals};
    shared->propose({&request, 1});
    return !proposals[0].rows.empty();
  };
  EXPECT_TRUE(proposes({TokenTree::kRoot}));
  const NodeId fits = draft.tree.add(TokenTree::kRoot, letter);
  const NodeId long_one = draft.tree.add(TokenTree::kRoot, longest);
  EXPECT_FALSE(proposes({fits, long_one}));
  EXPECT_FALSE(proposes({draft.tree.add(fits, letter)}));
  Verdict verdict;
  verdict.accepted = {fits};
  verdict.next = letter;
  shared->commit(*state, draft.tree, verdict, {});
  draft.reset(letter, 700);
  EXPECT_TRUE(proposes({TokenTree::kRoot}));
}

}  // namespace
}  // namespace specmoe
