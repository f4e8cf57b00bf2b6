#include <gtest/gtest.h>

#include "tests/tree/growing.h"
#include "tree/verify_times.h"

namespace specmoe::testing {
namespace {

/// The tree of largest utility among all cuts of all that could be drafted, by trying them.
TEST(ExpertAware, CutsWhereUtilityIsLargest) {
  const double draft_time = 0.05;
  const VerifyTimes times("test", "1:1/2:1.3/4:1.5/8:2.5/16:4");
  for (double sharpness : {0.2, 3.0, 8.0, 14.0}) {
    const TextRows drafter{4, sharpness, 7};
    const Draft<float> draft = grown(
        "expert_aware(nodes=15,depth=3,width=4,draft_time=0.05,verify_times=1:1/2:1.3/4:1.5/8:2.5/16:4)", drafter);
    double most = 1.0 / (draft_time + times.at(1));
    for (int depth = 1; depth <= 3; ++depth) {
      for (std::size_t nodes = 1; nodes <= 15; ++nodes) {
        if (depth == 1 && nodes > 4) break;
        double tokens = 1.0;
        for (const std::vector<TokenId>& text : likeliest_texts(drafter, depth, nodes)) {
          tokens += path_probability(drafter, text);
        }
        most = std::max(most, tokens / (depth * draft_time + times.at(static_cast<int>(nodes) + 1)));
      }
    }
    double tokens = 1.0;
    for (const std::vector<TokenId>& text : texts_of(draft.tree)) tokens += path_probability(drafter, text);
    const double utility = tokens / (std::max(1, draft.tree.max_depth()) * draft_time + times.at(draft.tree.size()));
    EXPECT_GE(utility, most * 0.97) << "sharpness " << sharpness;
    EXPECT_LE(utility, most * (1 + 1e-6)) << "sharpness " << sharpness;
  }
}

TEST(ExpertAware, DraftsNoMoreThanPays) {
  // Where rows cost as much as plain steps nothing pays; where they cost nothing everything does.
  EXPECT_EQ(grown("expert_aware(width=4,verify_times=1:1/2:2/4:4/16:16)", {6, 3.0, 1}).tree.drafted(), 0);
  EXPECT_EQ(grown("expert_aware(width=6,draft_time=0,verify_times=1:1/33:1)", {6, 3.0, 1}).tree.drafted(), 32);
  // Never a larger tree than was measured.
  EXPECT_EQ(grown("expert_aware(width=6,draft_time=0,verify_times=1:1/5:1)", {6, 3.0, 1}).tree.drafted(), 4);
  Draft<float> draft;
  const auto asked = [&draft](const char* spec) {
    return grow_draft(*tree_policies().create(spec), {6, 12.0, 1}, draft, DraftLaw::kDeterministic).passes;
  };
  EXPECT_GT(asked("expert_aware(draft_time=0.01,verify_times=1:1/9:1.5)"),
            asked("expert_aware(draft_time=0.5,verify_times=1:1/9:1.5)"));
}

}  // namespace
}  // namespace specmoe::testing
