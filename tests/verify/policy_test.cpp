#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/acceptance.h"
#include "core/decide.h"
#include "core/draw.h"
#include "core/row_stats.h"

namespace specmoe {
namespace {

template <class Real>
struct Toy {
  Draft<Real> draft;
  StoredRows<Real> target;
};

/// A chain of one token drawn from q, and the target's rows at the root and after it.
template <class Real>
Toy<Real> one_token(const std::vector<Real>& p, const std::vector<Real>& q, TokenId token) {
  Toy<Real> toy;
  toy.draft.law = DraftLaw::kIid;
  toy.draft.reset(0, static_cast<int>(q.size()));
  const int row = toy.draft.rows.add_dense(q);
  toy.draft.add(TokenTree::kRoot, token, row);
  toy.target.reset(static_cast<int>(p.size()));
  toy.target.add_dense(p);
  toy.target.add_dense(p);
  return toy;
}

template <class Real>
Verdict judge(const std::string& policy, Toy<Real>& toy, std::uint64_t seed = 1) {
  PhiloxUniforms uniforms(seed, 0, 0);
  Verdict verdict;
  acceptance_policies().create(policy)->judge(toy.draft, toy.target, uniforms, verdict);
  return verdict;
}

std::string error_of(const std::string& policy, Toy<float>& toy) {
  try {
    judge(policy, toy);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class EveryPolicy : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPolicy, RefusesRowsThatAreNoDistributionsNamingNodeAndValue) {
  if (GetParam() == "greedy") return;  // reads the argmax alone
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Toy<float> toy = one_token<float>({nan, 0.5F, 0.5F}, {.2F, .3F, .5F}, 2);
  EXPECT_TRUE(mentions(error_of(GetParam(), toy), "node 0")) << error_of(GetParam(), toy);
  EXPECT_TRUE(mentions(error_of(GetParam(), toy), "nan")) << error_of(GetParam(), toy);
  toy = one_token<float>({-0.25F, 0.75F, 0.5F}, {.2F, .3F, .5F}, 2);
  EXPECT_TRUE(mentions(error_of(GetParam(), toy), "-0.25")) << error_of(GetParam(), toy);
  toy = one_token<float>({0.25F, 0.25F, 0.25F}, {.2F, .3F, .5F}, 2);
  EXPECT_TRUE(mentions(error_of(GetParam(), toy), "0.75")) << error_of(GetParam(), toy);
}

TEST_P(EveryPolicy, RefusesVocabulariesThatDiffer) {
  Toy<float> toy = one_token<float>({.25F, .25F, .5F}, {.2F, .3F, .4F, .1F}, 2);
  const std::string error = error_of(GetParam(), toy);
  EXPECT_TRUE(mentions(error, "3") && mentions(error, "4")) << error;
}

TEST_P(EveryPolicy, NeverAcceptsWhatTheTargetExcludes) {
  if (GetParam() == "cascade") return;  // where the draft is confident, its own law is what cascades emit
  Toy<float> toy = one_token<float>({.5F, .5F, 0.0F}, {0.0F, 0.0F, 1.0F}, 2);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Verdict verdict = judge(GetParam(), toy, seed);
    EXPECT_TRUE(verdict.accepted.empty());
    EXPECT_NE(verdict.next, 2);
  }
}

TEST_P(EveryPolicy, DecidesFloatAndDoubleRowsAlike) {
  const auto policy = acceptance_policies().create(GetParam());
  for (DraftLaw law :
       {DraftLaw::kDeterministic, DraftLaw::kIid, DraftLaw::kWithoutReplacement, DraftLaw::kTopPlusSampled}) {
    if (policy->lossless() && !policy->lossless_laws().contains(law)) continue;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      // Multiples of 1/64 are the same in float and in double.
      PhiloxUniforms noise(seed, 99, 0);
      const auto random_row = [&](int index) {
        std::vector<double> row(8, 0.0);
        for (int i = 0; i < 64; ++i) {
          row[static_cast<std::size_t>(8 * std::pow(noise.value({index, Purpose::kPlugin, i}), 2.0))] += 1.0 / 64;
        }
        return row;
      };
      Toy<double> wide;
      wide.draft.law = law;
      wide.draft.reset(0, 8);
      wide.target.reset(8);
      PhiloxUniforms uniforms(seed, 5, 0);
      std::vector<NodeId> added;
      for (NodeId parent = 0; parent < (policy->judges_trees() ? 4 : 3) && parent < wide.draft.tree.size(); ++parent) {
        const std::int32_t row = wide.draft.rows.add_dense(random_row(parent));
        draw_children<double>(wide.draft, parent, policy->judges_trees() ? 2 : 1, std::span(&row, 1), uniforms, added);
      }
      for (int n = 0; n < wide.draft.tree.size(); ++n) wide.target.add_dense(random_row(100 + n));
      Toy<float> narrow;
      narrow.draft.law = law;
      narrow.draft.tree = wide.draft.tree;
      narrow.draft.row_of = wide.draft.row_of;
      narrow.draft.rows.reset(8);
      narrow.target.reset(8);
      const auto narrowed = [](std::span<const double> row) { return std::vector<float>(row.begin(), row.end()); };
      for (int i = 0; i < wide.draft.rows.size(); ++i) narrow.draft.rows.add_dense(narrowed(wide.draft.rows.dense(i)));
      for (int i = 0; i < wide.target.size(); ++i) narrow.target.add_dense(narrowed(wide.target.dense(i)));
      const Verdict a = judge(GetParam(), wide, seed);
      const Verdict b = judge(GetParam(), narrow, seed);
      EXPECT_EQ(a.accepted, b.accepted) << law_name(law) << " seed " << seed;
      EXPECT_EQ(a.next, b.next) << law_name(law) << " seed " << seed;
      NodeId node = TokenTree::kRoot;
      for (NodeId child : b.accepted) {
        EXPECT_EQ(narrow.draft.tree.parent(child), node);
        node = child;
      }
    }
  }
}

TEST_P(EveryPolicy, FollowsAPointTarget) {
  // Temperature 0: all mass on token 1, drafted as the second child of a deterministic pair, or alone on a chain.
  const auto policy = acceptance_policies().create(GetParam());
  if (policy->lossless() && !policy->lossless_laws().contains(DraftLaw::kDeterministic)) return;
  Toy<float> toy;
  toy.draft.law = DraftLaw::kDeterministic;
  toy.draft.reset(0, 3);
  if (policy->judges_trees()) toy.draft.add(TokenTree::kRoot, 2, -1);
  const NodeId hit = toy.draft.add(TokenTree::kRoot, 1, -1);
  toy.target.reset(3);
  toy.target.add_point(1);
  for (NodeId n = 1; n < toy.draft.tree.size(); ++n) toy.target.add_point(n == hit ? 0 : 2);
  const Verdict verdict = judge(GetParam(), toy);
  EXPECT_EQ(verdict.accepted, std::vector<NodeId>{hit});
  EXPECT_EQ(verdict.next, 0);
}

TEST_P(EveryPolicy, JudgesARootAlone) {
  Toy<float> toy;
  toy.draft.law = DraftLaw::kIid;
  toy.draft.reset(0, 3);
  toy.target.reset(3);
  toy.target.add_dense(std::vector<float>{0.0F, 1.0F, 0.0F});
  const Verdict verdict = judge(GetParam(), toy);
  EXPECT_TRUE(verdict.accepted.empty());
  EXPECT_EQ(verdict.next, 1);
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryPolicy, ::testing::ValuesIn(acceptance_policies().names()));

TEST(ChainPolicies, RefuseTrees) {
  for (const std::string& name : acceptance_policies().names()) {
    if (acceptance_policies().create(name)->judges_trees()) continue;
    Toy<float> toy = one_token<float>({.25F, .25F, .5F}, {.2F, .3F, .5F}, 2);
    toy.draft.add(TokenTree::kRoot, 1, 0);
    toy.target.add_dense(std::vector<float>{.25F, .25F, .5F});
    EXPECT_TRUE(mentions(error_of(name, toy), "node 0 branches")) << name << ": " << error_of(name, toy);
  }
}

TEST(KSeq, RefusesChildrenWithoutARow) {
  Toy<float> toy = one_token<float>({.25F, .25F, .5F}, {.2F, .3F, .5F}, 2);
  toy.draft.row_of[1] = -1;
  EXPECT_TRUE(mentions(error_of("k_seq", toy), "node 1")) << error_of("k_seq", toy);
}

TEST(Parameters, OutOfRangeAreRefused) {
  for (const char* spec :
       {"typical(epsilon=0)", "typical(delta=1)", "relaxed(top=0)", "relaxed(delta=2)", "lenient(lenience=0)",
        "lenient(lenience=1.5)", "kl_block(threshold=-1)", "log_likelihood(least=1)", "mentored(divergence=-1)",
        "multi_step(siblings=some)", "token(gamma=3)"}) {
    EXPECT_THROW(acceptance_policies().create(spec), Error) << spec;
  }
}

TEST(CheckRow, SeesOneWrongValueWhereverItStands) {
  // 300 tokens: a whole block, then whole groups of lanes, then a remainder.
  const std::vector<float> good(300, 1.0F / 300);
  const auto check = [](const std::vector<float>& row) {
    check_row(ProbRow<float>(std::span<const float>(row)), "row", 0);
  };
  EXPECT_NO_THROW(check(good));
  for (int x : {0, 5, 18, 255, 256, 271, 288, 299}) {
    std::vector<float> row = good;
    row[(x + 1) % 300] += row[x];
    for (float wrong : {-1e-9F, std::numeric_limits<float>::quiet_NaN(), 0.1F}) {
      row[x] = wrong;
      EXPECT_THROW(check(row), Error) << wrong << " at " << x;
    }
    row[x] = -0.0F;
    EXPECT_NO_THROW(check(row)) << x;
    row[x] = 1.0F;
    EXPECT_EQ(argmax_token(ProbRow<float>(std::span<const float>(row))), x);
  }
}

TEST(RowStats, FastLogAndEntropyAgreeWithTheLibrary) {
  for (float x = 1e-37F; x < 1e3F; x *= 1.37F) {
    const double exact = std::log(static_cast<double>(x));
    EXPECT_NEAR(fast_log(x), exact, 2e-7 * std::max(1.0, std::abs(exact))) << x;
  }
  EXPECT_TRUE(std::isfinite(fast_log(0.0F)));
  std::vector<float> narrow(700);
  std::vector<double> wide(700);
  for (int x = 0; x < 700; ++x) wide[x] = narrow[x] = x % 7 == 0 ? static_cast<float>(x) / 34650.0F : 0.0F;
  const ProbRow<float> row{std::span<const float>(narrow)};
  EXPECT_NEAR(entropy(row), entropy(ProbRow<double>{std::span<const double>(wide)}), 1e-5);
  EXPECT_EQ(argmax_token(row), 693);
  EXPECT_EQ(rank_of(row, 686), 1);
}

}  // namespace
}  // namespace specmoe
