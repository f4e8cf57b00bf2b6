#include <gtest/gtest.h>

#include "core/drafter.h"

namespace specmoe {
namespace {

std::vector<TokenId> proposed(const std::string& spec, const std::vector<TokenId>& text) {
  const auto drafter = drafters().create(spec);
  const auto state = drafter->open(text, {}, 100);
  Draft<float> draft;
  draft.reset(text.back(), 100);
  const std::vector<NodeId> frontier = {TokenTree::kRoot};
  const SamplingParams sampling;
  PhiloxUniforms uniforms(0, 0, 0);
  std::vector<Proposal> proposals(1);
  LogitChanges changes;
  const ProposeRequest request{state.get(), &draft, frontier, &sampling, &changes, &uniforms, false, &proposals};
  drafter->propose({&request, 1});
  return proposals[0].tokens;
}

using Tokens = std::vector<TokenId>;

TEST(Ngram, ProposesWhatFollowedTheLongestMatchFirst) {
  //                                              1 2 -> 3 (old), 1 2 -> 4 (recent), 2 -> 9 (recent, shorter)
  EXPECT_EQ(proposed("ngram(max_n=2)", {1, 2, 3, 1, 2, 4, 8, 2, 9, 1, 2}), (Tokens{4, 3, 9}));
  EXPECT_EQ(proposed("ngram(max_n=2,choices=1)", {1, 2, 3, 1, 2, 4, 8, 2, 9, 1, 2}), (Tokens{4}));
  EXPECT_EQ(proposed("ngram(max_n=2,min_n=2)", {1, 2, 3, 8, 2, 9, 1, 2}), (Tokens{3}));
}

TEST(Ngram, ProposesNothingWithoutAMatch) {
  EXPECT_TRUE(proposed("ngram", {1, 2, 3}).empty());
  EXPECT_TRUE(proposed("ngram", {1}).empty());
}

TEST(Ngram, SeesRepetitionUpToTheLastToken) { EXPECT_EQ(proposed("ngram", {5, 5}), (Tokens{5})); }

TEST(Ngram, RefusesImpossibleLengths) {
  for (const char* spec : {"ngram(max_n=0)", "ngram(min_n=3,max_n=2)", "ngram(choices=0)"}) {
    EXPECT_THROW(drafters().create(spec), Error) << spec;
  }
}

}  // namespace
}  // namespace specmoe
