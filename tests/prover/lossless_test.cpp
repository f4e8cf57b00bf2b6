#include <cctype>
#include <map>

#include <gtest/gtest.h>

#include "core/prover.h"
#include "tests/support/markov_models.h"

namespace specmoe::testing {
namespace {

/// Every registered policy, and the variants that parameters make of it.
std::vector<std::string> policy_specs() {
  std::vector<std::string> specs = acceptance_policies().names();
  for (const char* name : {"multi_step", "traversal"}) {
    for (const char* law : {"independent", "without_replacement"}) {
      specs.push_back(std::string(name) + "(siblings=" + law + ")");
    }
  }
  return specs;
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

class EveryPolicy : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<AcceptancePolicy> policy_ = acceptance_policies().create(GetParam());

  void expect_lossless(DraftLaw law, const std::string& tree, const ProofModels& models,
                       const ProofOptions& options = {}) const {
    const auto topology = tree_policies().create(tree);
    if (topology->branches() && !policy_->judges_trees()) return;
    const ProofReport report = prove(*policy_, law, *topology, models, options);
    EXPECT_TRUE(report.lossless) << GetParam() << " on " << law_name(law) << " " << tree << " with " << models.name
                                 << ": distance " << report.tvd;
    EXPECT_GE(report.expected_tokens, 1.0);
  }
};

TEST_P(EveryPolicy, KeepsTheTargetsLawForTheLawsItDeclares) {
  for (DraftLaw law : kAllLaws) {
    if (!policy_->lossless_laws().contains(law)) continue;
    for (const ProofModels& models : all_proof_models()) {
      for (const char* tree : {"chain(1)", "chain(2)", "chain(5)", "expansion(2)", "expansion(3)", "expansion(2,1)",
                               "expansion(1,3)", "expansion(2,2)"}) {
        if (std::string(tree) == "chain(5)" && models.target.vocab == 4) continue;
        expect_lossless(law, tree, models);
      }
    }
    expect_lossless(law, "expansion(2,2,1)", builtin_proof_models()[2]);
    if (law != DraftLaw::kIid && law != DraftLaw::kMultiDrafter) {
      expect_lossless(law, "expansion(3,2)", builtin_proof_models()[0]);
    }
  }
}

TEST_P(EveryPolicy, KeepsItOverTwoRounds) {
  ProofOptions options;
  options.rounds = 2;
  for (DraftLaw law : kAllLaws) {
    if (!policy_->lossless_laws().contains(law)) continue;
    expect_lossless(law, "chain(2)", builtin_proof_models()[1], options);
    expect_lossless(law, "chain(2)", builtin_proof_models()[2], options);
    expect_lossless(law, "expansion(2)", builtin_proof_models()[0], options);
    expect_lossless(law, "expansion(2,1)", builtin_proof_models()[2], options);
  }
}

TEST_P(EveryPolicy, KeepsItExactlyInFractions) {
  ProofOptions options;
  options.exact = true;
  for (DraftLaw law : kAllLaws) {
    if (!policy_->lossless_laws().contains(law)) continue;
    for (const ProofModels& models : builtin_proof_models()) {
      for (const char* tree : {"chain(2)", "expansion(2)", "expansion(2,1)"}) {
        expect_lossless(law, tree, models, options);
      }
    }
  }
}

/// A label that promises too little is wrong too: outside its laws a policy is biased somewhere, or refuses.
TEST_P(EveryPolicy, IsBiasedOrRefusesOutsideThem) {
  for (DraftLaw law : kAllLaws) {
    if (policy_->lossless_laws().contains(law)) continue;
    bool biased = false;
    for (const ProofModels& models : all_proof_models()) {
      for (const char* tree : {"chain(2)", "expansion(2)", "expansion(2,2)"}) {
        const auto topology = tree_policies().create(tree);
        if (topology->branches() && !policy_->judges_trees()) continue;
        try {
          biased |= !prove(*policy_, law, *topology, models).lossless;
        } catch (const Error&) {
          biased = true;
        }
      }
    }
    // Without a row to compare with, these fall back to what is exact: a point-mass row, or the target itself.
    const bool exact_on_points = law == DraftLaw::kDeterministic && GetParam() == "cascade";
    EXPECT_TRUE(biased || exact_on_points) << GetParam() << " could declare " << law_name(law);
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryPolicy, ::testing::ValuesIn(policy_specs()), test_name);

class EveryTopology : public ::testing::TestWithParam<std::string> {};

/// Small trees of every registered topology; one that is missing here is proved at its defaults.
std::vector<std::string> topology_specs() {
  const std::map<std::string, std::vector<std::string>> small = {
      {"chain", {"chain(3)"}},
      {"chains", {"chains(k=2,gamma=2)"}},
      {"delayed", {"delayed(trunk=1,k=2,branch=1)"}},
      {"expansion", {"expansion(2,2)"}},
      {"static_ranks", {"static_ranks(0,1,0/0,law=without_replacement)", "static_ranks(0,1,0/0,0/1)"}},
      {"sequoia", {"sequoia(0.6,0.3,nodes=5,depth=3)"}},
      {"confidence", {"confidence(nodes=4,depth=3,width=2)"}},
      {"opt_tree", {"opt_tree(nodes=4,depth=3,width=2,threshold=0.05)"}},
      {"best_first", {"best_first(nodes=4,depth=3,width=2,batch=2)"}},
      {"expert_aware", {"expert_aware(nodes=4,depth=3,width=2,draft_time=0,verify_times=1:1/2:1.3/5:1.6)"}},
      {"gated", {"gated(nodes=5,depth=3,width=2,mu=0.5)"}},
      {"adaptive_chain",
       {"adaptive_chain(gamma=3,threshold=0.5)", "adaptive_chain(gamma=3,rule=entropy,threshold=0.6)",
        "adaptive_chain(gamma=3,rule=survival,threshold=0.3)",
        "adaptive_chain(gamma=2,threshold=0.5,learn=0.5,off_below=0.95,pause=1)"}},
  };
  std::vector<std::string> specs;
  for (const std::string& name : tree_policies().names()) {
    const auto found = small.find(name);
    const std::vector<std::string> some = found != small.end() ? found->second : std::vector<std::string>{name};
    specs.insert(specs.end(), some.begin(), some.end());
  }
  return specs;
}

/// What a topology decides must not depend on the tokens it decides about: with each lossless policy, over one round
/// and two, its own law keeps the target's distribution.
TEST_P(EveryTopology, IsNonAnticipating) {
  const auto topology = tree_policies().create(GetParam());
  ProofOptions two_rounds;
  two_rounds.rounds = 2;
  for (const std::string& name : acceptance_policies().names()) {
    const auto policy = acceptance_policies().create(name);
    if (!policy->lossless_laws().contains(topology->law())) continue;
    if (topology->branches() && !policy->judges_trees()) continue;
    for (const ProofModels& models : builtin_proof_models()) {
      const ProofReport report = prove(*policy, topology->law(), *topology, models);
      EXPECT_TRUE(report.lossless) << name << " on " << GetParam() << " with " << models.name << ": " << report.tvd;
    }
    const ProofReport report = prove(*policy, topology->law(), *topology, builtin_proof_models()[2], two_rounds);
    EXPECT_TRUE(report.lossless) << name << " on " << GetParam() << " over two rounds: " << report.tvd;
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryTopology, ::testing::ValuesIn(topology_specs()), test_name);

TEST(Controls, ADraftThatEqualsTheTargetIsAcceptedWhole) {
  const ProofModels& equal = more_proof_models().back();
  for (const char* name : {"token", "block", "multi_step", "traversal", "k_seq"}) {
    const ProofReport report =
        prove(*acceptance_policies().create(name), DraftLaw::kIid, *tree_policies().create("chain(3)"), equal);
    EXPECT_DOUBLE_EQ(report.expected_tokens, 4.0) << name;
  }
}

}  // namespace
}  // namespace specmoe::testing
