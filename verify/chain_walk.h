#pragma once

#include "core/greedy_walk.h"
#include "core/residual.h"

namespace specmoe {

/// Walks a chain from the root for as long as accept(node, child, row) says yes, `row` being the target's after `node`;
/// what it leaves undecided is drawn by emit(node, child, row), child being kNone after the last token.
template <class Draft, class Rows, class Verdict, class Accept, class Emit>
SPECMOE_HD void walk_chain(Draft& draft, Rows& target, Verdict& verdict, const Accept& accept, const Emit& emit) {
  for (NodeId node = TokenTree::kRoot;;) {
    const auto row = target.row(node);
    check_row(row, "target row", node);
    const NodeId child = draft.tree.first_child(node);
    if (child != TokenTree::kNone) {
      check_row(draft.row(child), "draft row", child);
      if (accept(node, child, row)) {
        node = child;
        continue;
      }
    }
    verdict.next = emit(node, child, row);
    return accept_path(draft.tree, node, verdict);
  }
}

/// Accepts each token with probability min(1, p / (lenience q)) and replaces the first failure by a draw from
/// norm((p - lenience q)+).
template <class Draft, class Rows, class Uniforms, class Verdict>
SPECMOE_HD void ratio_walk(Draft& draft, Rows& target, Uniforms& uniforms, Verdict& verdict,
                           const typename Draft::Row::Scalar& lenience) {
  using W = typename Draft::Row::Scalar;
  const auto accept = [&](NodeId node, NodeId child, const auto& row) {
    const auto [p, q] = Residual(draft, node, row, false).ratio(child);
    return uniforms.at({child, Purpose::kAccept, 0}).less(p, W(lenience * q));
  };
  const auto emit = [&](NodeId node, NodeId child, const auto& row) {
    Residual residual(draft, node, row, false);
    if (child != TokenTree::kNone) residual.reject(child, W(W(1) / lenience));
    return residual.draw(uniforms.at({node, Purpose::kNext, 0}));
  };
  walk_chain(draft, target, verdict, accept, emit);
}

}  // namespace specmoe
