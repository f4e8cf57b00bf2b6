#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/acceptance.h"
#include "core/markov.h"
#include "core/tree_policy.h"

namespace specmoe {

/// The models of one proof: a target, one drafter or several (DraftLaw::kMultiDrafter), and the text decoding starts
/// from, at least as long as the highest order.
struct ProofModels {
  std::string name;
  MarkovModel target;
  std::vector<MarkovModel> drafts;
  std::vector<TokenId> start;

  /// Throws Error for rows that are no distributions, vocabularies that differ, a start outside them.
  void validate() const;
};

/// The models that proofs run on unless the caller brings some: the toy of the golden vectors first, then one whose
/// target rows hold zeros and whose drafter misses target tokens, then one of order 2.
const std::vector<ProofModels>& builtin_proof_models();

/// A user's own target and drafter, rows of probabilities [V, V] by last token. Throws Error naming what is wrong.
ProofModels given_proof_models(const std::vector<std::vector<double>>& target,
                               const std::vector<std::vector<double>>& draft);

/// Draws children in place of draw_children(): how drafting bugs are put before the prover.
using DrawFunction = std::function<void(Draft<double>&, NodeId parent, int count, std::span<const std::int32_t> rows,
                                        UniformSource<double>&, std::vector<NodeId>& added)>;

/// rounds  steps enumerated before the text is completed by the target; 2 catches what leaks from one step to the next
/// length  tokens whose joint law is compared; 0: depth of the tree + 1, and one more for each further round
/// exact   compute in exact fractions; distances are then exactly 0 or not
/// poll    called now and then; what it throws ends the proof
struct ProofOptions {
  int rounds = 1;
  int length = 0;
  bool exact = false;
  DrawFunction draw;
  std::function<void()> poll;
};

/// How an emitted text came to be too likely: the smallest drafted tree, and the likeliest way, that leads to it.
///
/// text       the shortest emitted text with a wrong probability; among those, the one most too likely
/// tree       the drafted tree, `0(2(1,1),2)`: token, children in order of drawing
/// uniforms   where each uniform that was asked about lies, one line each
struct CounterExample {
  std::vector<TokenId> text;
  double expected = 0.0;
  double actual = 0.0;
  std::string tree;
  std::vector<std::string> uniforms;
  std::vector<TokenId> emitted;
};

/// lossless         total variation distance below 1e-12 (exactly 0 in exact fractions)
/// tvd              between the joint law of the first `length` emitted tokens and the target's
/// expected_tokens  per target pass, from the starting text, extra token included
/// expected         [V^length] the target's law, first token the highest digit base V
/// emitted          [V^length] the law that came out
/// outcomes         ways of drafting and judging that were visited
struct ProofReport {
  std::string models;
  bool lossless = false;
  double tvd = 0.0;
  double expected_tokens = 0.0;
  int vocab = 0;
  int length = 0;
  std::vector<double> expected;
  std::vector<double> emitted;
  std::int64_t outcomes = 0;
  std::optional<CounterExample> counter_example;
};

/// The tree that a policy is proved on unless the caller names one: the smallest that shows what it does.
std::string default_proof_tree(const AcceptancePolicy& policy);

/// Enumerates every way of drafting and judging with the real code and compares what is emitted with the target.
///
/// A policy that only follows the argmax is compared with the target's greedy text.
/// throws  Error when the policy is not defined for the tree (chains alone), the law needs more drafts than there are,
///         or a verdict is no path of the tree
ProofReport prove(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree, const ProofModels& models,
                  const ProofOptions& options = {});

/// The same over several sets of models: the first report that is not lossless, else the first one with the largest
/// distance of all.
ProofReport prove(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree,
                  std::span<const ProofModels> all, const ProofOptions& options = {});

}  // namespace specmoe
