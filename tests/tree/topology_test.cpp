#include <gtest/gtest.h>

#include "tests/tree/growing.h"
#include "tree/sequoia_dp.h"

namespace specmoe::testing {
namespace {

class EveryTopology : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryTopology, KeepsItsPromisesUnderEveryLawItMayMeet) {
  const auto tree = tree_policies().create(GetParam());
  EXPECT_GE(tree->max_nodes(), 2);
  EXPECT_GE(tree->max_grown_nodes(), tree->max_nodes());
  for (DraftLaw law : {tree->law(), DraftLaw::kDeterministic}) {
    for (bool rows : {true, false}) {
      if (!rows && law != DraftLaw::kDeterministic) continue;
      for (double sharpness : {0.5, 4.0, 12.0}) {
        Draft<float> draft;
        const Grown grown = grow_draft(*tree, TextRows{12, sharpness}, draft, law, rows);
        EXPECT_LE(grown.nodes, tree->max_grown_nodes());
        EXPECT_LE(draft.tree.size(), tree->max_nodes());
        EXPECT_LE(draft.tree.max_depth(), tree->max_depth());
        EXPECT_TRUE(tree->branches() || draft.tree.size() == draft.tree.max_depth() + 1);
        Draft<double> wide;
        grow_draft(*tree, TextRows{12, sharpness}, wide, law, rows);
        EXPECT_EQ(texts_of(wide.tree), texts_of(draft.tree)) << law_name(law) << " sharpness " << sharpness;
      }
    }
  }
}

/// The row that a node's children come from decides, never the children themselves: with other uniforms, the root has
/// as many children.
TEST_P(EveryTopology, DecidesBeforeItDraws) {
  const auto tree = tree_policies().create(GetParam());
  if (tree->law() == DraftLaw::kDeterministic) return;
  std::vector<int> counts;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    Draft<float> draft;
    grow_draft(*tree, TextRows{12, 3.0}, draft, tree->law(), true, seed);
    counts.push_back(draft.tree.child_count(TokenTree::kRoot));
  }
  EXPECT_EQ(std::count(counts.begin(), counts.end(), counts[0]), 8);
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryTopology, ::testing::ValuesIn(tree_policies().names()));

TEST(StaticShapes, AreAsSpelled) {
  EXPECT_EQ(grown("chain(5)").tree.max_depth(), 5);
  EXPECT_EQ(grown("expansion(3,2,1)").tree.size(), 1 + 3 + 6 + 6);
  const Draft<float> chains = grown("chains(k=3,gamma=4)", {}, DraftLaw::kIid);
  EXPECT_EQ(chains.tree.size(), 1 + 3 * 4);
  EXPECT_EQ(chains.tree.child_count(TokenTree::kRoot), 3);
  const Draft<float> delayed = grown("delayed(trunk=2,k=3,branch=2)");
  EXPECT_EQ(delayed.tree.size(), 1 + 2 + 3 * 2);
  EXPECT_EQ(delayed.tree.child_count(2), 3);
  EXPECT_EQ(delayed.tree.max_depth(), 4);
}

TEST(StaticShapes, PublishedListsHaveTheirSizes) {
  const auto eagle = tree_policies().create("static_ranks(preset=eagle)");
  EXPECT_EQ(eagle->max_nodes(), 26);
  EXPECT_EQ(eagle->max_depth(), 5);
  const auto medusa = tree_policies().create("static_ranks(preset=medusa)");
  EXPECT_LE(medusa->max_nodes(), 64);
  EXPECT_EQ(medusa->max_depth(), 4);
}

TEST(Parameters, OutOfRangeAreRefused) {
  for (const char* spec :
       {"chain(0)", "chain(gamma=-3)", "expansion(0)", "expansion(100,100)", "chains(k=0)", "static_ranks(0/0)",
        "static_ranks(1)", "static_ranks(0,0)", "static_ranks(0,x)", "static_ranks(preset=none)", "sequoia(0.9,0.9)",
        "sequoia(nodes=0)", "sequoia(verify_times=1:2,3)", "expert_aware(draft_time=-1)", "confidence(width=0)",
        "gated(mu=0)", "adaptive_chain(rule=mood)", "adaptive_chain(threshold=2)", "expansion(2,law=some)"}) {
    EXPECT_THROW(tree_policies().create(spec), Error) << spec;
  }
}

TEST(BestFirst, FindsTheLikeliestTextsWhateverTheBatch) {
  for (double sharpness : {1.0, 6.0}) {
    const TextRows drafter{5, sharpness, 3};
    const auto expected = likeliest_texts(drafter, 4, 12);
    for (const char* batch : {"1", "3", "8"}) {
      const Draft<float> draft =
          grown(std::string("best_first(nodes=12,depth=4,width=5,batch=") + batch + ")", drafter);
      EXPECT_EQ(texts_of(draft.tree), expected) << "batch " << batch << " sharpness " << sharpness;
    }
  }
}

/// With every node of a level expanded, EAGLE-2's tree is the likeliest texts too.
TEST(Confidence, KeepsTheLikeliestOfWhatItExpanded) {
  const TextRows drafter{3, 3.0, 5};
  EXPECT_EQ(texts_of(grown("confidence(nodes=7,depth=2,width=3)", drafter).tree), likeliest_texts(drafter, 2, 7));
}

TEST(OptTree, StopsWhenALevelAddsTooLittle) {
  const TextRows drafter{6, 8.0, 2};
  const Draft<float> eager = grown("opt_tree(nodes=16,depth=6,width=4,threshold=0)", drafter);
  const Draft<float> reluctant = grown("opt_tree(nodes=16,depth=6,width=4,threshold=0.9)", drafter);
  EXPECT_GT(eager.tree.max_depth(), reluctant.tree.max_depth());
}

TEST(Gated, GrowsDeepWhenSureAndWideWhenNot) {
  const Draft<float> sure = grown("gated(nodes=20,depth=10,width=4,mu=0.5)", {6, 14.0, 1});
  const Draft<float> unsure = grown("gated(nodes=20,depth=10,width=4,mu=0.05)", {6, 0.2, 1});
  EXPECT_GT(sure.tree.max_depth(), unsure.tree.max_depth());
  EXPECT_EQ(unsure.tree.size(), 21);
}

TEST(AdaptiveChain, StopsWhereTheRowIsFlat) {
  EXPECT_EQ(grown("adaptive_chain(gamma=6,threshold=0.5)", {8, 0.1, 1}, DraftLaw::kIid).tree.drafted(), 0);
  EXPECT_EQ(grown("adaptive_chain(gamma=6,threshold=0.01)", {8, 0.1, 1}, DraftLaw::kIid).tree.drafted(), 6);
  EXPECT_EQ(grown("adaptive_chain(gamma=6,rule=survival,threshold=0.02)", {4, 0.0, 1}, DraftLaw::kIid).tree.drafted(),
            2);
  EXPECT_EQ(grown("adaptive_chain(gamma=6,rule=entropy,threshold=0.9)", {8, 0.1, 1}, DraftLaw::kIid).tree.drafted(), 0);
}

TEST(AdaptiveChain, LearnsAndPauses) {
  const auto tree = tree_policies().create("adaptive_chain(gamma=2,threshold=0.3,learn=0.5,off_below=0.8,pause=2)");
  Draft<float> draft;
  const TextRows drafter{4, 3.0, 1};
  grow_draft(*tree, drafter, draft, DraftLaw::kIid);
  ASSERT_EQ(draft.tree.drafted(), 2);
  tree->observe(draft, 2);
  EXPECT_DOUBLE_EQ(draft.memory[0], 0.15);
  tree->observe(draft, 0);
  EXPECT_DOUBLE_EQ(draft.memory[0], 0.15 + 0.5 * 0.85);
  for (int i = 0; i < 3 && draft.memory[2] == 0.0; ++i) tree->observe(draft, 0);
  ASSERT_EQ(draft.memory[2], 2.0);
  for (int pause = 0; pause < 2; ++pause) {
    grow_draft(*tree, drafter, draft, DraftLaw::kIid);
    EXPECT_EQ(draft.tree.drafted(), 0);
    tree->observe(draft, 0);
  }
  EXPECT_EQ(draft.memory[2], 0.0);
}

/// Expected tokens of a shape when every node accepts its rank-b child with probability rates[b - 1].
double expected_tokens(const StaticShape& shape, const std::vector<double>& rates, int at = 0) {
  double sum = 1.0;
  for (int rank = 0; rank < shape.child_count(at); ++rank) {
    sum += rates[rank] * expected_tokens(shape, rates, shape.child(at, rank));
  }
  return sum;
}

/// All of the first k children are rejected with probability 0.4 k^-exponent.
std::vector<double> power_law_rates(double exponent) {
  std::vector<double> rates;
  double rejected = 1.0;
  for (int k = 1; k <= 32; ++k) {
    rates.push_back(rejected - 0.4 * std::pow(k, -exponent));
    rejected -= rates.back();
  }
  return rates;
}

TEST(Sequoia, ShapesAttainTheTable) {
  const std::vector<double> rates = {0.5, 0.2, 0.1, 0.05};
  const SequoiaTable table(rates, 20, 4);
  for (int nodes = 1; nodes <= 20; ++nodes) {
    const StaticShape shape = table.shape(nodes, 4);
    EXPECT_EQ(shape.size(), nodes);
    EXPECT_LE(shape.depth(), 4);
    EXPECT_NEAR(expected_tokens(shape, rates), table.expected(nodes, 4), 1e-12);
  }
}

/// Where rates fall with rank, the best tree is the nodes of largest survival product.
TEST(Sequoia, EqualsBestFirstWhereTheorySaysSo) {
  for (double exponent : {0.5, 1.0}) {
    const std::vector<double> rates = power_law_rates(exponent);
    for (int nodes : {8, 32, 64}) {
      std::vector<double> open = {1.0};
      double sum = 0.0;
      for (int i = 0; i < nodes; ++i) {
        const auto best = std::max_element(open.begin(), open.end());
        const double product = *best;
        open.erase(best);
        sum += product;
        for (double rate : rates) open.push_back(product * rate);
      }
      EXPECT_NEAR(SequoiaTable(rates, nodes, 20).expected(nodes, 20), sum, 1e-9) << nodes;
    }
  }
}

/// Expected tokens that an independent prototype found for this law.
TEST(Sequoia, ReproducesTheKnownScaling) {
  const std::vector<double> rates = power_law_rates(1.0);
  EXPECT_NEAR(SequoiaTable(rates, 8, 12).expected(8, 12), 2.75, 0.005);
  EXPECT_NEAR(SequoiaTable(rates, 32, 12).expected(32, 12), 3.73, 0.005);
}

TEST(Sequoia, ChoosesTheSizeByMeasuredTime) {
  const std::vector<double> rates = {0.6, 0.16, 0.07, 0.04};
  const SequoiaTable table(rates, 32, 8);
  const VerifyTimes flat("sequoia", "1:10/32:10");
  const VerifyTimes steep("sequoia", "1:1/32:320");
  EXPECT_EQ(table.fastest(0.0, flat).first, 32);
  EXPECT_LE(table.fastest(1.0, steep).first, 2);
  EXPECT_EQ(
      tree_policies().create("sequoia(0.6,0.16,nodes=32,depth=8,draft_time=0,verify_times=1:10/32:10)")->max_nodes(),
      32);
}

}  // namespace
}  // namespace specmoe::testing
