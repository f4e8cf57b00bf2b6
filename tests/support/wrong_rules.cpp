#include "tests/support/wrong_rules.h"

#include <cmath>
#include <utility>

#include "core/draw.h"
#include "tests/support/toy_rules.h"

namespace specmoe::testing {
namespace {

using namespace toy;

bool skip_none(const TokenTree&, NodeId, NodeId) { return false; }

bool repeats_earlier(const TokenTree& tree, NodeId first, NodeId child) {
  for (NodeId n = first; n != child; n = tree.next_sibling(n)) {
    if (tree.token(n) == tree.token(child)) return true;
  }
  return false;
}

/// Block verification whose last position accepts with the product of ratios, capped only at the end.
void judge_uncapped(Draft<double>& draft, Rows& target, Uniforms& uniforms, Verdict& verdict) {
  std::vector<double> a = {1.0};
  double product = 1.0;
  NodeId last = TokenTree::kRoot;
  for (NodeId n = draft.tree.first_child(last); n != TokenTree::kNone; n = draft.tree.first_child(n)) {
    const double ratio = target.row(last)[draft.tree.token(n)] / draft.row(n)[draft.tree.token(n)];
    product *= ratio;
    a.push_back(std::min(1.0, a.back() * ratio));
    last = n;
  }
  for (NodeId n = last;; n = draft.tree.parent(n)) {
    const double weight = a[draft.tree.depth(n)];
    std::vector<double> rest = copy(target.row(n));
    double h = std::min(1.0, product);
    if (n != last) {
      const ProbRow<double> q = draft.row(draft.tree.first_child(n));
      double sum = 0.0;
      for (TokenId x = 0; x < q.vocab(); ++x) sum += rest[x] = std::max(weight * rest[x] - q[x], 0.0);
      h = sum + 1.0 - weight > 0.0 ? sum / (sum + 1.0 - weight) : 1.0;
    }
    if (n != TokenTree::kRoot && !uniforms.at({n, Purpose::kAccept, 0}).less(h)) continue;
    accept_path(draft.tree, n, verdict);
    verdict.next = draw_weights(rest, uniforms.at({n, Purpose::kNext, 0}));
    return;
  }
}

// ---- drafting -------------------------------------------------------------------------------------------------------

using Indices = std::span<const std::int32_t>;

/// The likeliest tokens, passed off as drawn from the row.
void likeliest_as_drawn(Draft<double>& draft, NodeId parent, int count, Indices rows, Uniforms&,
                        std::vector<NodeId>& added) {
  for (TokenId token : likeliest_tokens(draft.rows.row(rows[0]), count)) {
    added.push_back(draft.add(parent, token, rows[0]));
  }
}

/// Draws from the row raised to a power, that is at a lower temperature than the row says.
void draw_colder(Draft<double>& draft, NodeId parent, int count, Indices rows, Uniforms& uniforms,
                 std::vector<NodeId>& added) {
  std::vector<double> colder = copy(draft.rows.row(rows[0]));
  for (double& value : colder) value = std::pow(value, 1.0 / 0.7);
  for (int i = 0; i < count; ++i) {
    const TokenId token = draw_weights(colder, uniforms.at({parent, Purpose::kDraft, i}));
    added.push_back(draft.add(parent, token, rows[0]));
  }
}

/// Draws a token, then leaves it out when its probability is low.
void drop_unlikely(Draft<double>& draft, NodeId parent, int count, Indices rows, Uniforms& uniforms,
                   std::vector<NodeId>& added) {
  const ProbRow<double> row = draft.rows.row(rows[0]);
  for (int i = 0; i < count; ++i) {
    const TokenId token = draw_from_row(row, Taken{}, uniforms.at({parent, Purpose::kDraft, i}));
    if (row[token] >= 0.3) added.push_back(draft.add(parent, token, rows[0]));
  }
}

/// Draws one token more than wanted, then leaves out the least likely.
void rerank(Draft<double>& draft, NodeId parent, int count, Indices rows, Uniforms& uniforms,
            std::vector<NodeId>& added) {
  const ProbRow<double> row = draft.rows.row(rows[0]);
  std::vector<TokenId> drawn;
  for (int i = 0; i <= count; ++i) {
    drawn.push_back(draw_from_row(row, Taken{}, uniforms.at({parent, Purpose::kDraft, i})));
  }
  std::stable_sort(drawn.begin(), drawn.end(), [&row](TokenId a, TokenId b) { return row[a] > row[b]; });
  for (int i = 0; i < count; ++i) added.push_back(draft.add(parent, drawn[i], rows[0]));
}

// ---- the zoo --------------------------------------------------------------------------------------------------------

std::shared_ptr<AcceptancePolicy> known(const char* spec) { return acceptance_policies().create(spec); }

std::vector<WrongRule> sibling_rules() {
  return {
      {"deduplicated_siblings",
       "merging equal siblings of sampled token trees, SpecInfer arXiv:2305.09781 section 3",
       fixed_row_rule(repeats_earlier),
       DraftLaw::kIid,
       "expansion(2)",
       {}},
      {"fixed_row_on_top_k", "SpecInfer arXiv:2305.09781, multi-step sampling said to support top-k expansion",
       fixed_row_rule(skip_none), DraftLaw::kIid, "expansion(2)", likeliest_as_drawn},
      {"draws_without_repeats_judged_as_independent",
       "github.com/ggml-org/llama.cpp/pull/5625 (script in the thread)",
       fixed_row_rule(skip_none),
       DraftLaw::kWithoutReplacement,
       "expansion(2,2)",
       {}},
      {"one_row_for_several_drafters",
       "merge-based trees of SpecInfer arXiv:2305.09781 with one q per node",
       fixed_row_rule(skip_none),
       DraftLaw::kMultiDrafter,
       "expansion(2)",
       {}},
      {"rerank_after_sampling", "the reranking of EAGLE-2 arXiv:2406.16858 on sampled children", known("multi_step"),
       DraftLaw::kIid, "expansion(2)", rerank},
  };
}

std::vector<WrongRule> draft_rules() {
  return {
      {"greedy_draft_judged_with_softmax", "github.com/huggingface/transformers/issues/32867", known("token"),
       DraftLaw::kIid, "chain(2)", likeliest_as_drawn},
      {"draft_temperature_mismatch", "github.com/huggingface/transformers/issues/47932", known("token"), DraftLaw::kIid,
       "chain(1)", draw_colder},
      {"drop_by_confidence", "github.com/ggml-org/llama.cpp/pull/22506", known("token"), DraftLaw::kIid, "chain(1)",
       drop_unlikely},
  };
}

std::vector<WrongRule> recovery_rules() {
  const auto whole_target = [](const ProbRow<double>& p, const ProbRow<double>&, TokenId, NodeId, Rows&) {
    return copy(p);
  };
  const auto without_rejected = [](const ProbRow<double>& p, const ProbRow<double>&, TokenId x, NodeId, Rows&) {
    std::vector<double> rest = copy(p);
    rest[x] = 0.0;
    return rest;
  };
  const auto next_position = [](const ProbRow<double>&, const ProbRow<double>& q, TokenId, NodeId child, Rows& target) {
    return residual(target.row(child), q);
  };
  const auto floored = [](const ProbRow<double>& p, const ProbRow<double>& q, TokenId, NodeId, Rows&) {
    std::vector<double> rest = copy(p);
    for (TokenId x = 0; x < p.vocab(); ++x) rest[x] = std::max(p[x] - q[x], 1e-5);
    return rest;
  };
  return {
      {"recovers_from_the_whole_target",
       "github.com/eth-sri/language-model-arithmetic/issues/14 (as asked there)",
       chain_rule(accept_by_ratio, whole_target),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"only_the_rejected_token_is_removed",
       "github.com/SafeAILab/EAGLE/issues/20",
       chain_rule(accept_by_ratio, without_rejected),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"residual_from_the_next_position",
       "github.com/huggingface/transformers/pull/28166 (indexing)",
       chain_rule(accept_by_ratio, next_position),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"residual_floored",
       "github.com/vllm-project/vllm/pull/13933 (clamp at 1e-5, in review)",
       chain_rule(accept_by_ratio, floored),
       DraftLaw::kIid,
       "chain(1)",
       {}},
  };
}

std::vector<WrongRule> acceptance_rules() {
  const auto more_likely = [](const ProbRow<double>& p, const ProbRow<double>& q, TokenId x, NodeId, NodeId,
                              Uniforms&) { return p[x] >= q[x]; };
  const auto drafting_noise = [](const ProbRow<double>& p, const ProbRow<double>& q, TokenId x, NodeId node, NodeId,
                                 Uniforms& uniforms) {
    return uniforms.at({node, Purpose::kDraft, 0}).less(p[x], q[x]);
  };
  const auto recovery_noise = [](const ProbRow<double>& p, const ProbRow<double>& q, TokenId x, NodeId node, NodeId,
                                 Uniforms& uniforms) {
    return uniforms.at({node, Purpose::kNext, 0}).less(p[x], q[x]);
  };
  // u <= t for a float32 uniform, a multiple of 2^-24, is u < (the largest multiple up to t) + 2^-24.
  const auto inclusive = [](const ProbRow<double>& p, const ProbRow<double>& q, TokenId x, NodeId, NodeId child,
                            Uniforms& uniforms) {
    return uniforms.at({child, Purpose::kAccept, 0}).less((std::floor(p[x] / q[x] * 0x1p24) + 1.0) * 0x1p-24);
  };
  const auto own_sample = [](Draft<double>& draft, NodeId node, Rows& target, Uniforms& uniforms) {
    const ProbRow<double> p = target.row(node);
    const Step sample = draw_next(p, node, uniforms);
    const NodeId child = draft.tree.first_child(node);
    if (child == TokenTree::kNone) return sample;
    const TokenId x = draft.tree.token(child);
    return uniforms.at({child, Purpose::kAccept, 0}).less(p[x], p[sample.next]) ? Step{child, x} : sample;
  };
  return {
      {"uncapped_last_step",
       "hierarchical speculative decoding, arXiv:2601.05724 (released rule)",
       rule(judge_uncapped),
       DraftLaw::kIid,
       "chain(2)",
       {}},
      {"accepts_when_more_likely",
       "github.com/vllm-project/vllm-project.github.io/pull/80 (as first written)",
       chain_rule(more_likely, recover_residual),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"noise_of_the_draft_reused",
       "github.com/vllm-project/vllm/pull/54282; Sequoia's reference code",
       chain_rule(drafting_noise, recover_residual),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"noise_of_the_test_reused",
       "github.com/vllm-project/vllm-ascend/pull/16370",
       chain_rule(recovery_noise, recover_residual),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"inclusive_compare",
       "github.com/sgl-project/sglang/issues/35771",
       chain_rule(inclusive, recover_residual),
       DraftLaw::kIid,
       "chain(1)",
       {}},
      {"ratio_to_the_targets_own_sample",
       "after github.com/ml-explore/mlx-swift-lm/pull/459, a ratio for its equality",
       walk(own_sample),
       DraftLaw::kIid,
       "chain(1)",
       {}},
  };
}

}  // namespace

const std::vector<WrongRule>& wrong_rules() {
  static const std::vector<WrongRule> all = [] {
    std::vector<WrongRule> rules;
    for (auto part : {sibling_rules(), draft_rules(), recovery_rules(), acceptance_rules()}) {
      rules.insert(rules.end(), part.begin(), part.end());
    }
    return rules;
  }();
  return all;
}

}  // namespace specmoe::testing
