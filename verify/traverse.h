#pragma once

#include <algorithm>

#include "core/acceptance.h"
#include "core/greedy_walk.h"
#include "core/residual.h"
#include "verify/siblings.h"

namespace specmoe {

/// Block verification on a tree, from the leaves up: a node is given up only after all that hangs below it was, and
/// what a rejected subtree leaves of the target's mass is offered to its siblings, then to the node itself.
///
/// O(rejected nodes * V) time, O(depth) scratch.
template <class Real>
class Traversal {
 public:
  using W = Wide<Real>;

  Traversal(Draft<Real>& draft, ProbRows<Real>& target, UniformSource<W>& uniforms, Verdict& verdict,
            bool without_replacement)
      : draft_(draft),
        target_(target),
        uniforms_(uniforms),
        verdict_(verdict),
        without_replacement_(without_replacement) {}

  void run() { visit(TokenTree::kRoot, W(1)); }

 private:
  /// Whether the text that ends in `node`, or a longer one below it, is accepted; `weight` is the probability with
  /// which the text may be accepted given that it was drafted. The root's stays 1.
  bool visit(NodeId node, W weight) {
    if (!(weight > W(0))) return false;
    const ProbRow<Real> row = target_.row(node);
    check_row(row, "target row", node);
    check_child_rows(draft_, node);
    Residual<Real> residual(draft_, node, row, without_replacement_);
    for (NodeId child = draft_.tree.first_child(node); child != TokenTree::kNone;
         child = draft_.tree.next_sibling(child)) {
      const auto [p, q] = residual.ratio(child);
      if (visit(child, std::min(W(1), W(weight * p / q)))) return true;
      const W rest = residual.reject(child, weight);
      const W norm = rest + (W(1) - weight);
      weight = norm > W(0) ? W(rest / norm) : W(1);
    }
    if (!uniforms_.at({node, Purpose::kAccept, 0}).less(weight)) return false;
    accept_path(draft_.tree, node, verdict_);
    verdict_.next = residual.draw(uniforms_.at({node, Purpose::kNext, 0}));
    return true;
  }

  Draft<Real>& draft_;
  ProbRows<Real>& target_;
  UniformSource<W>& uniforms_;
  Verdict& verdict_;
  bool without_replacement_;
};

}  // namespace specmoe
