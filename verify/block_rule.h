#pragma once

#include "core/greedy_walk.h"
#include "core/residual.h"
#include "verify/child_rows.h"

namespace specmoe {

/// See block.cpp. Down the chain for the weights, the probabilities with which each prefix may be accepted given that
/// it was drafted; then up again to the first prefix that passes.
template <class Draft, class Rows, class Uniforms, class Verdict>
SPECMOE_HD void block_rule(Draft& draft, Rows& target, Uniforms& uniforms, Verdict& verdict) {
  using W = typename Draft::Row::Scalar;
  typename Draft::Row::Team::template PerNode<W> weights(draft.tree.size());
  NodeId node = TokenTree::kRoot;
  for (W weight(1);;) {
    weights.set(node, weight);
    const auto row = target.row(node);
    check_row(row, "target row", node);
    check_child_rows(draft, node);
    const NodeId child = draft.tree.first_child(node);
    if (child == TokenTree::kNone) break;
    const auto [p, q] = Residual(draft, node, row, false).ratio(child);
    const W joint = weight * p / q;
    if (!(joint > W(0))) break;
    weight = joint < W(1) ? joint : W(1);
    node = child;
  }
  for (;; node = draft.tree.parent(node)) {
    Residual residual(draft, node, target.row(node), false);
    W weight = weights[node];
    if (const NodeId child = draft.tree.first_child(node); child != TokenTree::kNone) {
      // Everything from the child on was given up; what that leaves is offered to the text that ends here.
      const W rest = residual.reject(child, weight);
      const W norm = rest + (W(1) - weight);
      weight = norm > W(0) ? W(rest / norm) : W(1);
    }
    if (node != TokenTree::kRoot && !uniforms.at({node, Purpose::kAccept, 0}).less(weight)) continue;
    verdict.next = residual.draw(uniforms.at({node, Purpose::kNext, 0}));
    return accept_path(draft.tree, node, verdict);
  }
}

}  // namespace specmoe
