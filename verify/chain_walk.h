#pragma once

#include "core/acceptance.h"
#include "core/residual.h"

namespace specmoe {

/// Walks a chain from the root for as long as accept(node, child, row) says yes, `row` being the target's after `node`;
/// what it leaves undecided is drawn by emit(node, child, row), child being kNone after the last token.
template <class Real, class Accept, class Emit>
void walk_chain(Draft<Real>& draft, ProbRows<Real>& target, const char* policy, Verdict& verdict, const Accept& accept,
                const Emit& emit) {
  check_draft(draft, target);
  check_chain(draft.tree, policy);
  verdict.accepted.clear();
  for (NodeId node = TokenTree::kRoot;;) {
    const ProbRow<Real> row = target.row(node);
    check_row(row, "target row", node);
    const NodeId child = draft.tree.first_child(node);
    if (child != TokenTree::kNone) {
      check_row(draft.row(child), "draft row", child);
      if (accept(node, child, row)) {
        verdict.accepted.push_back(child);
        node = child;
        continue;
      }
    }
    verdict.next = emit(node, child, row);
    return;
  }
}

/// Accepts each token with probability min(1, p / (lenience q)) and replaces the first failure by a draw from
/// norm((p - lenience q)+).
template <class Real>
void ratio_walk(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<Wide<Real>>& uniforms, const char* policy,
                const Wide<Real>& lenience, Verdict& verdict) {
  using W = Wide<Real>;
  const auto accept = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
    const auto [p, q] = Residual<Real>(draft, node, row, false).ratio(child);
    return uniforms.at({child, Purpose::kAccept, 0}).less(p, W(lenience * q));
  };
  const auto emit = [&](NodeId node, NodeId child, const ProbRow<Real>& row) {
    Residual<Real> residual(draft, node, row, false);
    if (child != TokenTree::kNone) residual.reject(child, W(W(1) / lenience));
    return residual.draw(uniforms.at({node, Purpose::kNext, 0}));
  };
  walk_chain(draft, target, policy, verdict, accept, emit);
}

}  // namespace specmoe
