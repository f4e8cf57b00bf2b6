#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/acceptance.h"
#include "core/decide.h"
#include "core/greedy_walk.h"

/// Acceptance rules written down by the book, for toys: in doubles, whole rows in memory, no checks.
namespace specmoe::testing::toy {

using Rows = ProbRows<double>;
using Uniforms = UniformSource<double>;

/// A policy from a function (draft, target, uniforms, verdict), for toys: in doubles, with no checks.
template <class Judge>
class ToyPolicy final : public PolicyOf<ToyPolicy<Judge>> {
 public:
  explicit ToyPolicy(Judge judge) : judge_(std::move(judge)) {}
  LawSet lossless_laws() const override { return LawSet::all(); }
  bool judges_trees() const override { return true; }

  template <class Real>
  void decide(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, Verdict& verdict) const {
    if constexpr (std::is_same_v<Real, double>) {
      judge_(draft, target, uniforms, verdict);
    } else {
      fail("wrong rules are judged in doubles");
    }
  }

 private:
  Judge judge_;
};
template <class Judge>
std::shared_ptr<AcceptancePolicy> rule(Judge judge) {
  return std::make_shared<ToyPolicy<Judge>>(std::move(judge));
}

/// What happens at one node: a child is accepted, or a token ends the step.
struct Step {
  NodeId accepted = TokenTree::kNone;
  TokenId next = 0;
};
/// A policy that walks down by step(draft, node, target, uniforms).
template <class StepFunction>
std::shared_ptr<AcceptancePolicy> walk(StepFunction step) {
  return rule([step](Draft<double>& draft, Rows& target, Uniforms& uniforms, Verdict& verdict) {
    NodeId node = TokenTree::kRoot;
    Step at = step(draft, node, target, uniforms);
    for (; at.accepted != TokenTree::kNone; at = step(draft, node, target, uniforms)) node = at.accepted;
    accept_path(draft.tree, node, verdict);
    verdict.next = at.next;
  });
}

inline TokenId draw_weights(const std::vector<double>& weights, const Uniform<double>& uniform) {
  return draw_from_row(ProbRow<double>(std::span<const double>(weights)), Taken{}, uniform);
}
inline Step emit(TokenId token) { return {TokenTree::kNone, token}; }
inline Step draw_next(const ProbRow<double>& row, NodeId node, Uniforms& uniforms) {
  return emit(draw_from_row(row, Taken{}, uniforms.at({node, Purpose::kNext, 0})));
}
inline std::vector<double> copy(const ProbRow<double>& row) {
  std::vector<double> values(row.vocab());
  for (TokenId x = 0; x < row.vocab(); ++x) values[x] = row[x];
  return values;
}

/// norm((p - q)+) in full, by the book.
inline std::vector<double> residual(const ProbRow<double>& p, const ProbRow<double>& q) {
  std::vector<double> rest(p.vocab());
  double sum = 0.0;
  for (TokenId x = 0; x < p.vocab(); ++x) sum += rest[x] = std::max(p[x] - q[x], 0.0);
  for (TokenId x = 0; x < p.vocab(); ++x) rest[x] = sum > 0.0 ? rest[x] / sum : p[x];
  return rest;
}

/// The token-level rule for a chain with its parts left open, so that a wrong rule states only what is wrong.
template <class Accept, class Recover>
std::shared_ptr<AcceptancePolicy> chain_rule(Accept accept, Recover recover) {
  return walk([accept, recover](Draft<double>& draft, NodeId node, Rows& target, Uniforms& uniforms) {
    const NodeId child = draft.tree.first_child(node);
    const ProbRow<double> p = target.row(node);
    if (child == TokenTree::kNone) return draw_next(p, node, uniforms);
    const ProbRow<double> q = draft.row(child);
    const TokenId x = draft.tree.token(child);
    if (accept(p, q, x, node, child, uniforms)) return Step{child, x};
    return emit(draw_weights(recover(p, q, x, child, target), uniforms.at({node, Purpose::kNext, 0})));
  });
}
inline bool accept_by_ratio(const ProbRow<double>& p, const ProbRow<double>& q, TokenId x, NodeId, NodeId child,
                            Uniforms& uniforms) {
  return uniforms.at({child, Purpose::kAccept, 0}).less(p[x], q[x]);
}
inline std::vector<double> recover_residual(const ProbRow<double>& p, const ProbRow<double>& q, TokenId, NodeId,
                                            Rows&) {
  return residual(p, q);
}
/// Multi-step sampling with the row of the first child for all of them; `skip` leaves children out.
template <class Skip>
std::shared_ptr<AcceptancePolicy> fixed_row_rule(Skip skip) {
  return walk([skip](Draft<double>& draft, NodeId node, Rows& target, Uniforms& uniforms) {
    std::vector<double> r = copy(target.row(node));
    const NodeId first = draft.tree.first_child(node);
    for (NodeId child = first; child != TokenTree::kNone; child = draft.tree.next_sibling(child)) {
      if (skip(draft.tree, first, child)) continue;
      const ProbRow<double> q = draft.row(first);
      const TokenId x = draft.tree.token(child);
      if (q[x] > 0.0 && uniforms.at({child, Purpose::kAccept, 0}).less(r[x], q[x])) return Step{child, x};
      r = residual(ProbRow<double>(std::span<const double>(r)), q);
    }
    return emit(draw_weights(r, uniforms.at({node, Purpose::kNext, 0})));
  });
}

}  // namespace specmoe::testing::toy
