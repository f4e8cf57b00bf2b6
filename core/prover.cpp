#include "core/prover.h"

#include <cmath>
#include <cstdlib>

#include "core/greedy_walk.h"
#include "core/prover_run.h"

namespace specmoe {
namespace {

using detail::ProofRun;

constexpr double kLosslessWithin = 1e-12;

/// The target of a policy that follows the argmax: all mass on each row's likeliest token.
MarkovModel greedy_target(const MarkovModel& target) {
  MarkovModel greedy = target;
  for (int row = 0; row < target.contexts(); ++row) {
    double* values = greedy.weights.data() + row * target.vocab;
    const TokenId best = argmax_token(ProbRow<double>(std::span<const double>(values, target.vocab)));
    for (TokenId x = 0; x < target.vocab; ++x) values[x] = x == best ? 1.0 : 0.0;
  }
  return greedy;
}

void render(const TokenTree& tree, NodeId node, std::string& text) {
  text += std::to_string(tree.token(node));
  for (NodeId child = tree.first_child(node); child != TokenTree::kNone; child = tree.next_sibling(child)) {
    text += child == tree.first_child(node) ? "(" : ",";
    render(tree, child, text);
  }
  if (!tree.is_leaf(node)) text += ")";
}

const char* purpose_name(Purpose purpose) {
  switch (purpose) {
    case Purpose::kDraft:
      return "draft";
    case Purpose::kAccept:
      return "accept";
    case Purpose::kNext:
      return "next";
    case Purpose::kPlugin:
      return "plugin";
  }
  return "?";
}

/// Sums a law over all but its first `length` tokens.
std::vector<double> shortened(const std::vector<double>& law, int vocab, int from, int length) {
  std::size_t tail = 1;
  for (int k = length; k < from; ++k) tail *= vocab;
  std::vector<double> shorter(law.size() / tail, 0.0);
  for (std::size_t text = 0; text < law.size(); ++text) shorter[text / tail] += law[text];
  return shorter;
}

/// The shortest text with a wrong probability; of those, the one that is most too likely.
CounterExample find_text(const ProofReport& report) {
  CounterExample found;
  for (int length = 1; length <= report.length && found.text.empty(); ++length) {
    const auto expected = shortened(report.expected, report.vocab, report.length, length);
    const auto actual = shortened(report.emitted, report.vocab, report.length, length);
    double worst = kLosslessWithin / 16;
    for (std::size_t text = 0; text < expected.size(); ++text) {
      if (actual[text] - expected[text] <= worst) continue;
      worst = actual[text] - expected[text];
      found.expected = expected[text];
      found.actual = actual[text];
      found.text.assign(length, 0);
      std::size_t rest = text;
      for (int k = length; k-- > 0; rest /= report.vocab) {
        found.text[k] = static_cast<TokenId>(rest % report.vocab);
      }
    }
  }
  return found;
}

template <class Real>
void find_outcome(ProofRun<Real>& run, CounterExample& found) {
  int smallest = 0;
  double likeliest = 0.0;
  run.visit([&](const ProofRun<Real>& outcome) {
    const auto& emitted = outcome.emitted();
    if (emitted.size() < found.text.size() || !std::equal(found.text.begin(), found.text.end(), emitted.begin())) {
      return;
    }
    const int size = outcome.draft().tree.size();
    const auto weight = static_cast<double>(outcome.uniforms().weight());
    if (smallest != 0 && (size > smallest || (size == smallest && weight <= likeliest))) return;
    smallest = size;
    likeliest = weight;
    found.emitted = emitted;
    found.tree.clear();
    render(outcome.draft().tree, TokenTree::kRoot, found.tree);
    found.uniforms.clear();
    for (const auto& u : outcome.uniforms().intervals()) {
      found.uniforms.push_back(concat(purpose_name(u.address.purpose), " at node ", u.address.node, " slot ",
                                      u.address.slot, ": ", static_cast<double>(u.lo), " <= u < ",
                                      static_cast<double>(u.hi)));
    }
  });
}

template <class Real>
ProofReport prove_in(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree, const ProofModels& models,
                     const ProofOptions& options, int length) {
  ProofRun<Real> run(policy, law, tree, models, options, length);
  run.collect();
  const std::vector<Real> target = run.target_law();
  Real distance(0);
  using std::abs;
  for (std::size_t text = 0; text < target.size(); ++text) distance += abs(Real(run.law()[text] - target[text]));

  ProofReport report;
  report.models = models.name;
  report.vocab = models.target.vocab;
  report.length = length;
  report.outcomes = run.outcomes();
  report.tvd = static_cast<double>(distance) / 2;
  report.expected_tokens = static_cast<double>(run.expected_tokens());
  for (const Real& value : target) report.expected.push_back(static_cast<double>(value));
  for (const Real& value : run.law()) report.emitted.push_back(static_cast<double>(value));
  const double weight = static_cast<double>(run.total_weight());
  SPECMOE_CHECK(std::abs(weight - 1.0) < 1e-9, "proof: the outcomes weigh ", weight,
                " in all, not 1; the policy asks for a threshold that is no number");
  report.lossless = options.exact ? distance == Real(0) : report.tvd < kLosslessWithin;
  if (!report.lossless) {
    report.counter_example = find_text(report);
    ProofRun<Real> again(policy, law, tree, models, options, length);
    find_outcome(again, *report.counter_example);
  }
  return report;
}

}  // namespace

void ProofModels::validate() const {
  target.validate("target");
  SPECMOE_CHECK(!drafts.empty(), "proof: expected a draft model, got none");
  int order = target.order;
  for (const MarkovModel& draft : drafts) {
    draft.validate("draft");
    SPECMOE_CHECK(draft.vocab == target.vocab, "draft: expected the target's vocabulary of ", target.vocab,
                  " tokens, got ", draft.vocab);
    order = std::max(order, draft.order);
  }
  SPECMOE_CHECK(static_cast<int>(start.size()) >= order, "start: expected at least ", order, " tokens, got ",
                start.size());
  for (TokenId token : start) {
    SPECMOE_CHECK(token >= 0 && token < target.vocab, "start: token ", token, " is outside the vocabulary of ",
                  target.vocab);
  }
}

const std::vector<ProofModels>& builtin_proof_models() {
  static const std::vector<ProofModels> models = {
      {"golden toy, V=3",
       markov({{50, 35, 15}, {15, 55, 30}, {40, 35, 25}}),
       {markov({{20, 25, 55}, {45, 35, 20}, {25, 20, 55}}), markov({{60, 20, 20}, {30, 30, 40}, {10, 60, 30}})},
       {0}},
      {"zeros, V=3",
       markov({{5, 3, 2}, {0, 7, 3}, {4, 4, 2}}),
       {markov({{2, 6, 2}, {3, 3, 4}, {10, 0, 0}}), markov({{0, 5, 5}, {4, 0, 6}, {1, 2, 7}})},
       {0}},
      {"order 2, V=2",
       markov({{1, 3}, {1, 0}, {2, 3}, {3, 1}}, 2),
       {markov({{2, 1}, {1, 2}, {1, 1}, {1, 4}}, 2), markov({{3, 1}, {1, 4}})},
       {0, 1}},
  };
  return models;
}

ProofModels given_proof_models(const std::vector<std::vector<double>>& target,
                               const std::vector<std::vector<double>>& draft) {
  ProofModels models{
      "given", markov_from_probabilities(target, "target"), {markov_from_probabilities(draft, "draft")}, {0}};
  models.validate();
  return models;
}

std::string default_proof_tree(const AcceptancePolicy& policy) {
  return policy.judges_trees() ? "expansion(2,2)" : "chain(3)";
}

ProofReport prove(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree, const ProofModels& models,
                  const ProofOptions& options) {
  models.validate();
  SPECMOE_CHECK(law != DraftLaw::kMultiDrafter || models.drafts.size() > 1, "proof: the law ", law_name(law),
                " needs several drafters, got one; leave target and draft out to use the built-in models");
  SPECMOE_CHECK(options.rounds >= 1 && options.rounds <= 4, "proof: rounds must be 1 to 4, got ", options.rounds);
  SPECMOE_CHECK(policy.judges_trees() || !tree.branches(),
                "proof: this policy judges chains alone, and the tree branches; give a chain, such as chain(3)");
  SPECMOE_CHECK(options.length >= 0 && options.length <= 64,
                "proof: length must be 1 to 64 tokens, or 0 for the depth of the tree + rounds, got ", options.length);
  const int length = options.length > 0 ? options.length : tree.max_depth() + options.rounds;
  SPECMOE_CHECK(std::pow(models.target.vocab, length) <= 65536, "proof: the law of ", length, " tokens out of ",
                models.target.vocab,
                " is too large to tabulate; take a smaller tree, fewer rounds or a shorter length");
  SPECMOE_CHECK(!options.exact || !options.draw, "proof: a draw function works in doubles; leave exact off");
  ProofModels used = models;
  if (!policy.samples()) used.target = greedy_target(models.target);
  return options.exact ? prove_in<Rational>(policy, law, tree, used, options, length)
                       : prove_in<double>(policy, law, tree, used, options, length);
}

ProofReport prove(const AcceptancePolicy& policy, DraftLaw law, const TreePolicy& tree,
                  std::span<const ProofModels> all, const ProofOptions& options) {
  SPECMOE_CHECK(!all.empty(), "proof: expected models to prove it on, got none");
  std::optional<ProofReport> result;
  for (const ProofModels& models : all) {
    ProofReport report = prove(policy, law, tree, models, options);
    if (!report.lossless) return report;
    if (!result) {
      result = std::move(report);
    } else {
      result->tvd = std::max(result->tvd, report.tvd);
    }
  }
  return *result;
}

}  // namespace specmoe
